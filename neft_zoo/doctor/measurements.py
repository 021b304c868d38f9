"""Measuring what stock `neftune_noise_alpha` and a strategy add to the embeddings of one trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neft_zoo.doctor.probes import (
    HALF_WAY,
    STEP,
    Inputs,
    StockKind,
    StrategyKind,
    first_tokens,
    measure,
    model_of,
    rms,
)
from neft_zoo.doctor.report import HOOK, Layout, Measures
from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import Noise
from neft_zoo.noise.batch import Batch, step_key
from neft_zoo.passes.adding import add_rounded
from neft_zoo.passes.anatomy import find_table
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.hf_internals import prepared_inputs, with_stock_noise
from neft_zoo.training.session import NoiseSession
from neft_zoo.training.token_counts import count_tokens

if TYPE_CHECKING:
    from jaxtyping import Float
    from transformers import Trainer

BATCHES = 3


@dataclass(frozen=True)
class Source:
    """The embeddings of one batch at the real model's width.

    Attributes:
        embeds: in the dtype of the recipe.
        batch: their tokens, as row numbers of the table that `noise` was prepared for.
        noise: the strategy's noise, prepared for that table.
        weights: "real weights" or "random weights".
    """

    embeds: Float[Tensor, "B L D"]
    batch: Batch
    noise: Noise
    weights: str


@dataclass(frozen=True)
class Comparison:
    """Both kinds of noise on a trainer's first batches.

    Attributes:
        layout: of the batches.
        weights: of the embeddings at the real width.
        measured: by kind of noise.
    """

    layout: Layout
    weights: str
    measured: dict[str, Measures]


def compare(
    trainer: Trainer, strategy: Strategy, alpha: float, source: Callable[[NoiseSession, Batch], Source]
) -> Comparison:
    """Measure what both kinds of noise add to a noise-free trainer's first batches; its model is unchanged afterwards.

    Args:
        trainer: provides the batches and the loss.
        strategy: compared with stock noise.
        alpha: of both.
        source: returns embeddings at the real width for a batch.

    Raises:
        NoiseError: if the data is smaller than a batch, or the strategy is incompatible with the model.
    """
    model = model_of(trainer)
    was_training = model.training
    trainer.current_gradient_accumulation_steps = 1  # TRL divides a mixture-of-experts loss by it
    inputs = [prepared_inputs(trainer, each) for each in islice(trainer.get_train_dataloader(), BATCHES)]
    if not inputs:
        raise NoiseError("dataset_name must hold a full batch of records, got fewer.")
    table = find_table(model)
    session = NoiseSession(
        model,
        strategy,
        tokenizer=trainer.processing_class,
        token_counts=lambda: count_tokens(trainer.train_dataset, len(table)),
    )
    session.detach()
    batches = [session.batch(each, step_key(trainer.args.seed, 0, STEP), HALF_WAY) for each in inputs]
    try:
        measured = {}
        for kind in (StockKind(trainer, alpha), StrategyKind(trainer, session)):
            model.train()
            with kind.attached():
                measured[kind.name] = measure(kind, inputs, batches, alpha)
        wide = source(session, batches[0])
        for name in measured:
            measured[name] = replace(measured[name], **at_real_width(name, wide, alpha))
    finally:
        model.zero_grad()
        model.train(was_training)
    return Comparison(_layout(trainer, inputs, batches, wide), wide.weights, measured)


def at_real_width(name: str, source: Source, alpha: float) -> dict[str, float | None]:
    """Return the signal-to-noise ratio, and what rounding to the recipe's dtype removes from the noise."""
    real, embeds = source.batch.real, source.embeds
    intended = (_with_noise(name, source, embeds.float(), alpha) - embeds.float())[real]
    rounded = (_with_noise(name, source, embeds, alpha).float() - embeds.float())[real]
    noisy = intended != 0
    if not noisy.any():
        return {"lost": None, "rounded_ratio": None, "snr_db": None}
    snr = 20 * torch.tensor(rms(embeds.float()[real]) / rms(intended)).log10()
    lost = float(((rounded == 0) & noisy).sum() / noisy.sum())
    return {"lost": lost, "rounded_ratio": rms(rounded) / rms(intended), "snr_db": snr.item()}


def _with_noise(name: str, source: Source, embeds: Tensor, alpha: float) -> Float[Tensor, "B L D"]:
    """Return embeddings with noise, added by the same code as in training."""
    if name == HOOK:
        return with_stock_noise(embeds, alpha)
    return add_rounded(embeds, source.noise(embeds, source.batch), source.batch)


def _layout(trainer: Trainer, inputs: list[Inputs], batches: list[Batch], source: Source) -> Layout:
    rows, width = batches[0].real.shape
    args: Any = trainer.args
    return Layout(
        batches=len(batches),
        rows=rows,
        width=width,
        documents=int(first_tokens(batches[0]).sum()),
        real_tokens=float(torch.cat([batch.real.flatten() for batch in batches]).float().mean()),
        packing=args.packing_strategy if getattr(args, "packing", False) else None,
        images=any("pixel_values" in each for each in inputs),
        dtype=str(source.embeds.dtype).removeprefix("torch."),
    )
