"""What stock `neftune_noise_alpha` and a strategy add to the embeddings, measured on one trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import set_seed

from neft_zoo.doctor.report import HOOK, OURS, Layout, Measures
from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import Noise
from neft_zoo.noise.batch import Batch, step_key
from neft_zoo.passes.adding import add_rounded
from neft_zoo.passes.anatomy import find_embedding, find_table
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.hf_internals import StockNoise, prepared_inputs, with_stock_noise
from neft_zoo.training.session import NoiseSession
from neft_zoo.training.token_counts import count_tokens
from neft_zoo.training.trainers import SFTTrainer

if TYPE_CHECKING:
    from jaxtyping import Float

BATCHES, PROMPT, DECODED = 3, 64, 4
HALF_WAY, STEP = 0.5, 50  # progress and step at which schedules and draws are looked at
Inputs: TypeAlias = dict[str, Any]


class LastPass(Exception):  # noqa: N818
    """Ends a computation whose last pass has gone through the embedding: the rest of it is not needed."""


@dataclass(frozen=True)
class Source:
    """The embeddings of one batch at the real model's width.

    Attributes:
        embeds: in the dtype of the recipe.
        batch: their tokens, as rows of the table that `noise` knows.
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
        measured: by the name of the kind.
    """

    layout: Layout
    weights: str
    measured: dict[str, Measures]


def compare(
    trainer: SFTTrainer, strategy: Strategy, alpha: float, source: Callable[[NoiseSession, Batch], Source]
) -> Comparison:
    """Return what both kinds of noise add to the first batches of a trainer without noise; its model stays as it was.

    Args:
        trainer: it makes the batches and the loss.
        strategy: what is compared with stock noise.
        alpha: of both.
        source: returns embeddings of the real width for a batch.

    Raises:
        NoiseError: if the data is smaller than a batch, or the strategy does not go with the model.
    """
    model = _model(trainer)
    was_training = model.training
    trainer.current_gradient_accumulation_steps = 1  # TRL's loss of a mixture of experts divides by it
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


class StockKind:
    """Noise as transformers adds it for `neftune_noise_alpha`."""

    name, passes = HOOK, 1

    def __init__(self, trainer: SFTTrainer, alpha: float) -> None:
        self.trainer, self.alpha = trainer, alpha

    def attached(self) -> StockNoise:
        """Return a context in which the hook is set."""
        return StockNoise(_model(self.trainer), self.alpha, self.trainer.accelerator)

    def loss(self, inputs: Inputs, rank: int) -> Tensor:
        """Return the loss of a training step; nothing of the hook depends on the rank, but for the seed."""
        return self.trainer.compute_loss(_model(self.trainer), dict(inputs))


class StrategyKind:
    """Noise as this package adds it while it trains."""

    name = OURS

    def __init__(self, trainer: SFTTrainer, session: NoiseSession) -> None:
        self.trainer, self.session, self.passes = trainer, session, session.strategy.objective.passes

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Set the hooks for a while."""
        self.session.attach()
        try:
            yield
        finally:
            self.session.detach()

    def loss(self, inputs: Inputs, rank: int) -> Tensor:
        """Return the loss of a training step on a data-parallel rank."""
        key = step_key(self.trainer.args.seed, rank, STEP)
        model = _model(self.trainer)
        return self.session.loss(
            inputs, lambda given: self.trainer.compute_loss(model, given), key=key, progress=HALF_WAY
        )


def measure(kind: StockKind | StrategyKind, inputs: list[Inputs], batches: list[Batch], alpha: float) -> Measures:
    """Return what a kind of noise, which is attached, adds to a shrunk or real model's embeddings."""
    added = [_in_training(kind, each) for each in inputs]
    ratios = torch.cat([_ratios(noise, batch, alpha) for noise, batch in zip(added, batches, strict=True)])
    energies = [noise.square().sum(-1) for noise in added]
    padding = sum(float(energy[~batch.real].sum()) for energy, batch in zip(energies, batches, strict=True))
    other = _in_training(kind, inputs[0], rank=1)
    ranks = torch.stack([noise[batches[0].real].flatten() for noise in (added[0], other)])
    model = _model(kind.trainer)
    return Measures(
        ratio_min=ratios.min().item(),
        ratio_median=ratios.median().item(),
        ratio_max=ratios.max().item(),
        padding_share=padding / max(1e-30, sum(float(energy.sum()) for energy in energies)),
        no_grad_ratio=_ratios(_without_gradients(model, inputs[0]), batches[0], alpha).median().item(),
        decoded_ratio=_decoding(model, batches[0], alpha),
        rank_correlation=torch.corrcoef(ranks)[0, 1].nan_to_num(0.0).item(),
    )


def _in_training(kind: StockKind | StrategyKind, inputs: Inputs, rank: int = 0) -> Float[Tensor, "B L D"]:
    """Return what the last pass of a training step adds on a rank."""
    set_seed(kind.trainer.args.seed)  # as every rank does
    return added_by(_model(kind.trainer), lambda: kind.loss(inputs, rank), kind.passes)[-1]


def _without_gradients(model: nn.Module, inputs: Inputs) -> Float[Tensor, "B L D"]:
    """Return what is added where a reference scores the batch, in train mode."""
    unlabelled = {name: value for name, value in inputs.items() if name != "labels"}
    with torch.no_grad():
        return added_by(model, lambda: model(**unlabelled), last=1)[0]


def _decoding(model: Any, batch: Batch, alpha: float) -> float:
    """Return the rms that a decoded token gets in train mode, over the paper's on a document as long as the prompt."""
    prompt = batch.input_ids[batch.real & (batch.document == batch.document[batch.real][0])][None, :PROMPT]
    settings = dict(max_new_tokens=DECODED, do_sample=False, eos_token_id=None, use_cache=True)
    mask = torch.ones_like(prompt)
    calls = added_by(model, lambda: model.generate(input_ids=prompt, attention_mask=mask, **settings))
    decoded = torch.cat([noise[:, -1] for noise in calls[1:]])
    return rms(decoded) * (3 * prompt.shape[1] * decoded.shape[-1]) ** 0.5 / alpha


def added_by(model: nn.Module, run: Callable[[], object], last: int | None = None) -> list[Float[Tensor, "B L D"]]:
    """Return what every pass of `run` adds to the embeddings; it ends at pass number `last`."""
    added: list[Tensor] = []

    def record(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        with torch.no_grad():
            clean = module.forward(*args)  # the plain lookup: hooks run in `__call__` only
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


def at_real_width(name: str, source: Source, alpha: float) -> dict[str, float | None]:
    """Return signal over noise, and what rounding to the recipe's dtype takes from the noise."""
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
    """Return embeddings with a kind's noise, by the code that adds it in training."""
    if name == HOOK:
        return with_stock_noise(embeds, alpha)
    return add_rounded(embeds, source.noise(embeds, source.batch), source.batch)


def _layout(trainer: SFTTrainer, inputs: list[Inputs], batches: list[Batch], source: Source) -> Layout:
    rows, width = batches[0].real.shape
    args: Any = trainer.args
    return Layout(
        batches=len(batches),
        rows=rows,
        width=width,
        documents=int(_firsts(batches[0]).sum()),
        real_tokens=float(torch.cat([batch.real.flatten() for batch in batches]).float().mean()),
        packing=args.packing_strategy if args.packing else None,
        images=any("pixel_values" in each for each in inputs),
        dtype=str(source.embeds.dtype).removeprefix("torch."),
    )


def _model(trainer: SFTTrainer) -> nn.Module:
    assert trainer.model is not None  # it is only None in transformers' annotations
    return trainer.model


def _ratios(noise: Float[Tensor, "B L D"], batch: Batch, alpha: float) -> Float[Tensor, " N"]:
    """Return the rms on every document over alpha / sqrt(3 n D); n and D cancel."""
    return (3 * batch.document_sum(noise.square().sum(-1))[_firsts(batch)]).sqrt() / alpha


def _firsts(batch: Batch) -> Tensor:
    return batch.real & (batch.position == 0)


def rms(values: Tensor) -> float:
    """Return the root mean square of all values."""
    return values.square().mean().sqrt().item()
