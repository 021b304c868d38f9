"""What stock noise and a strategy add to the batches of an existing trainer of any class."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from neft_zoo.doctor.measurements import Source, compare
from neft_zoo.doctor.probes import HALF_WAY, model_of
from neft_zoo.doctor.report import DoctorReport
from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import AtLayers, Noise, TokenEdit
from neft_zoo.noise.batch import Batch
from neft_zoo.noise.schedules import value_at
from neft_zoo.passes.anatomy import base_model, find_embedding
from neft_zoo.registry.entries import make
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.mixin import NoiseMixin
from neft_zoo.training.session import NoiseSession

if TYPE_CHECKING:
    import transformers

ALPHA = 5.0


def examine_trainer(trainer: transformers.Trainer, noise: Any = None) -> DoctorReport:
    """Measure what both kinds of noise add to a trainer's first batches, without training, and return the report.

    Args:
        trainer: a trainer that is not training.
        noise: a strategy's name, or a mapping with `name` and arguments; None for the trainer's own strategy, or for
            `neft_uniform` if it has none.

    Raises:
        NoiseError: if the noise is not added to the embeddings, or is incompatible with the model.
    """
    own = trainer.strategy if isinstance(trainer, NoiseMixin) else None
    strategy, alpha = strategy_and_alpha(own if noise is None else noise, trainer.args.neftune_noise_alpha)
    with trainer.current_session().suspended() if isinstance(trainer, NoiseMixin) else nullcontext():
        compared = compare(trainer, strategy, alpha, real_source)
    name = str(base_model(model_of(trainer)).config.name_or_path)
    return DoctorReport(name, True, strategy.to_dict(), alpha, compared.layout, compared.weights, compared.measured)


def strategy_and_alpha(noise: Any, neftune_noise_alpha: float | None) -> tuple[Strategy, float]:
    """Return the strategy to compare with stock noise, and the alpha of both.

    Args:
        noise: a strategy's name, a mapping with `name` and arguments, or None.
        neftune_noise_alpha: of stock noise, for a strategy that adds nothing.

    Raises:
        NoiseError: if the strategy does not add drawn noise to the embeddings.
    """
    strategy = make(noise if noise is not None else "none")
    if strategy.clean and strategy.weights is None:
        alpha = ALPHA if neftune_noise_alpha is None else neftune_noise_alpha
        if not 0 < alpha < float("inf"):
            raise NoiseError(f"neftune_noise_alpha must be a finite number > 0, got {alpha!r}.")
        return make("neft_uniform", alpha=alpha), float(alpha)
    additive = strategy.noise is not None and not isinstance(strategy.noise, AtLayers | TokenEdit)
    if not additive or strategy.family == "adversarial" or strategy.weights is not None:
        raise NoiseError(
            f"doctor compares noise that is drawn and added to the embeddings, got {strategy.name!r}; "
            "--noise neft_uniform compares that instead."
        )
    alpha: Any = strategy.arguments.get("alpha", ALPHA)
    return strategy, value_at(alpha, HALF_WAY) or ALPHA


def real_source(session: NoiseSession, batch: Batch) -> Source:
    """Return the embeddings of the trainer's own model."""
    with torch.no_grad():
        embeds = find_embedding(session.model)(batch.input_ids)
    return Source(embeds, batch, prepared(session.noise), "real weights")


def prepared(noise: Noise | TokenEdit | None) -> Noise:
    """Return a noise that is added to the embeddings."""
    assert noise is not None and not isinstance(noise, TokenEdit)  # checked by `strategy_and_alpha`
    return noise
