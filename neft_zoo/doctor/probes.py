"""Measuring, pass by pass, what each kind of noise adds to the embeddings of a trainer's model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import set_seed

from neft_zoo.doctor.report import HOOK, OURS, Measures
from neft_zoo.noise.batch import Batch, step_key
from neft_zoo.passes.anatomy import find_embedding
from neft_zoo.training.hf_internals import StockNoise
from neft_zoo.training.session import NoiseSession

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from transformers import Trainer

PROMPT, DECODED = 64, 4  # tokens at most
HALF_WAY, STEP = 0.5, 50  # training progress and step of the measurements, for schedules and draws
Inputs: TypeAlias = dict[str, Any]


class StockKind:
    """Noise as transformers adds it for `neftune_noise_alpha`."""

    name, passes = HOOK, 1

    def __init__(self, trainer: Trainer, alpha: float) -> None:
        self.trainer, self.alpha = trainer, alpha

    def attached(self) -> StockNoise:
        """Return a context in which the hook is set."""
        return StockNoise(model_of(self.trainer), self.alpha, self.trainer.accelerator)

    def loss(self, inputs: Inputs, rank: int) -> Tensor:
        """Return the loss of a training step; the hook depends on the rank only through the seed."""
        return loss_of(self.trainer, dict(inputs))


class StrategyKind:
    """Noise as this package adds it in training."""

    name = OURS

    def __init__(self, trainer: Trainer, session: NoiseSession) -> None:
        self.trainer, self.session, self.passes = trainer, session, session.strategy.objective.passes

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Set the hooks inside this context."""
        self.session.attach()
        try:
            yield
        finally:
            self.session.detach()

    def loss(self, inputs: Inputs, rank: int) -> Tensor:
        """Return the loss of a training step on a data-parallel rank."""
        key = step_key(self.trainer.args.seed, rank, STEP)
        return self.session.loss(inputs, lambda given: loss_of(self.trainer, given), key=key, progress=HALF_WAY)


def measure(kind: StockKind | StrategyKind, inputs: list[Inputs], batches: list[Batch], alpha: float) -> Measures:
    """Return what an attached kind of noise adds to a model's embeddings."""
    added = [_in_training(kind, each) for each in inputs]
    ratios = torch.cat([_ratios(noise, batch, alpha) for noise, batch in zip(added, batches, strict=True)])
    energies = [noise.square().sum(-1) for noise in added]
    padding = sum(float(energy[~batch.real].sum()) for energy, batch in zip(energies, batches, strict=True))
    total = sum(float(energy.sum()) for energy in energies)
    other = _in_training(kind, inputs[0], rank=1)
    ranks = torch.stack([noise[batches[0].real].flatten() for noise in (added[0], other)])
    correlation = torch.corrcoef(ranks)[0, 1].item()
    model = model_of(kind.trainer)
    return Measures(
        ratio_min=ratios.min().item(),
        ratio_median=ratios.median().item(),
        ratio_max=ratios.max().item(),
        padding_share=padding / total if total else None,
        no_grad_ratio=_ratios(_without_gradients(model, inputs[0]), batches[0], alpha).median().item(),
        decoded_ratio=_decoding(model, batches[0], alpha),
        rank_correlation=None if math.isnan(correlation) else correlation,  # of a first batch without noise
    )


def _in_training(kind: StockKind | StrategyKind, inputs: Inputs, rank: int = 0) -> Float[Tensor, "B L D"]:
    """Return what is added in the last pass of a training step on a rank."""
    set_seed(kind.trainer.args.seed)  # as on every rank
    return added_by(model_of(kind.trainer), lambda: kind.loss(inputs, rank), kind.passes)[-1]


def _without_gradients(model: nn.Module, inputs: Inputs) -> Float[Tensor, "B L D"]:
    """Return what is added in train mode without gradients, as when a reference model scores the batch."""
    unlabelled = {name: value for name, value in inputs.items() if name != "labels"}
    with torch.no_grad():
        return added_by(model, lambda: model(**unlabelled), last=1)[0]


def _decoding(model: Any, batch: Batch, alpha: float) -> float:
    """Return the rms on a decoded token in train mode, over the paper's rms for a document as long as the prompt."""
    prompt = batch.input_ids[batch.real & (batch.document == batch.document[batch.real][0])][None, :PROMPT]
    settings = dict(max_new_tokens=DECODED, do_sample=False, eos_token_id=None, use_cache=True)
    mask = torch.ones_like(prompt)
    calls = added_by(model, lambda: model.generate(input_ids=prompt, attention_mask=mask, **settings))
    decoded = torch.cat([noise[:, -1] for noise in calls[1:]])
    return rms(decoded) * (3 * prompt.shape[1] * decoded.shape[-1]) ** 0.5 / alpha


class LastPass(Exception):  # noqa: N818
    """Stops a computation after its last pass through the embedding."""


def added_by(model: nn.Module, run: Callable[[], object], last: int | None = None) -> list[Float[Tensor, "B L D"]]:
    """Return what every pass of `run` adds to the embeddings; `run` is stopped at pass number `last`."""
    added: list[Tensor] = []

    def record(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        with torch.no_grad():
            clean = module.forward(*args)  # the plain lookup, since hooks run only in `__call__`
        added.append(output.detach().float() - clean.float())
        if len(added) == last:
            raise LastPass

    handle = find_embedding(model).register_forward_hook(record)
    try:
        run()
    except LastPass:
        pass
    finally:
        handle.remove()
    return added


def model_of(trainer: Trainer) -> nn.Module:
    """Return the model of a trainer."""
    assert trainer.model is not None  # None only in transformers' annotations
    return trainer.model


def loss_of(trainer: Trainer, inputs: Inputs) -> Tensor:
    """Return a trainer's own loss."""
    loss = trainer.compute_loss(model_of(trainer), inputs)
    assert isinstance(loss, Tensor)  # no outputs were requested
    return loss


def _ratios(noise: Float[Tensor, "B L D"], batch: Batch, alpha: float) -> Float[Tensor, " N"]:
    """Return the rms per document over alpha / sqrt(3 n D); n and D cancel."""
    return (3 * batch.document_sum(noise.square().sum(-1))[first_tokens(batch)]).sqrt() / alpha


def first_tokens(batch: Batch) -> Bool[Tensor, "B L"]:
    """Return a mask of the first tokens of documents."""
    return batch.real & (batch.position == 0)


def rms(values: Tensor) -> float:
    """Return the root mean square of all values."""
    return values.square().mean().sqrt().item()
