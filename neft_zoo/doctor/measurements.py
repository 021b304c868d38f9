"""Two sides of one trainer, stock `neftune_noise_alpha` and a strategy: what each adds to the embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import set_seed
from transformers.integrations.neftune import activate_neftune, deactivate_neftune, neftune_post_forward_hook

from neft_zoo.errors import NoiseError
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.adding import add_rounded
from neft_zoo.passes.anatomy import find_embedding
from neft_zoo.registry.entries import make
from neft_zoo.training.trainers import SFTTrainer

HOOK, OURS = SIDES = ("neftune_noise_alpha", "neft-zoo")
BATCHES, PROMPT, DECODED = 3, 64, 4
HALF_WAY = 0.5  # the progress at which schedules are looked at


class Seen(Exception):  # noqa: N818
    """What is looked for has passed the embedding: the rest of the forward pass is not needed."""


@dataclass(frozen=True)
class Source:
    """The embeddings of one batch at the real model's width.

    Attributes:
        embeds: in the dtype of the recipe (B, L, D).
        batch: their tokens, as rows of the table that `noise` knows.
        noise: the strategy's noise, prepared for that table.
        weights: "real weights" or "random weights".
    """

    embeds: Tensor
    batch: Batch
    noise: Any
    weights: str


def compare(trainer: SFTTrainer, alpha: float, source: Callable[[Batch], Source]) -> dict[str, Any]:
    """Return what both sides add to the trainer's first batches; the model is left as it was found."""
    model: Any = trainer.model
    mode, strategy = model.training, trainer.strategy
    trainer.state.max_steps, trainer.state.global_step = 100, int(100 * HALF_WAY)
    trainer.current_gradient_accumulation_steps = 1
    batches = [trainer._prepare_inputs(inputs) for inputs in islice(trainer.get_train_dataloader(), BATCHES)]
    if not batches:
        raise NoiseError("dataset_name must hold a full batch of records, got fewer.")
    read, measured = [trainer._read(inputs) for inputs in batches], {}
    try:
        for name in SIDES:
            with side(trainer, name, alpha):
                measured[name] = measure(trainer, batches, read, alpha)
        wide = source(read[0])
        for name in SIDES:
            measured[name] |= at_real_width(name, wide, alpha)
    finally:
        trainer.strategy = strategy
        model.zero_grad()
        model.train(mode)
    rows, width = read[0].real.shape
    real = float(torch.cat([batch.real.flatten() for batch in read]).float().mean())
    layout: dict[str, Any] = {
        "rows": rows,
        "width": width,
        "documents": int(_firsts(read[0]).sum()),
        "real_tokens": real,
    }
    args: Any = trainer.args
    layout["packing"] = args.packing_strategy if args.packing else None
    layout["images"] = any("pixel_values" in inputs for inputs in batches)
    dtype = str(wide.embeds.dtype).removeprefix("torch.")
    return {"batches": len(batches), **layout, "dtype": dtype, "weights": wide.weights, "measured": measured}


@contextmanager
def side(trainer: Any, name: str, alpha: float) -> Iterator[None]:
    """Set the trainer up as transformers does for `neftune_noise_alpha`, or as this package does while it trains."""
    strategy, handle = trainer.strategy, None
    trainer.model.train()
    try:
        if name == HOOK:
            trainer.strategy = make("none")
            handle = activate_neftune(trainer.model, alpha, trainer.accelerator)
        else:
            trainer._attached()
        yield
    finally:
        if handle is not None:
            deactivate_neftune(trainer.model, handle, trainer.accelerator)
        trainer.strategy = strategy
        trainer._detach()


def measure(trainer: SFTTrainer, batches: list[Any], read: list[Batch], alpha: float) -> dict[str, float | None]:
    """Return what the side that is set up adds to a shrunk or real model's embeddings."""
    added = [_in_training(trainer, inputs) for inputs in batches]
    ratios = torch.cat([_ratios(noise, batch, alpha) for noise, batch in zip(added, read, strict=True)])
    energies = [noise.square().sum(-1) for noise in added]
    padding = sum(float(energy[~batch.real].sum()) for energy, batch in zip(energies, read, strict=True))
    other = _in_training(trainer, batches[0], rank=1)
    ranks = torch.stack([noise[read[0].real].flatten() for noise in (added[0], other)])
    return {
        "ratio_min": ratios.min().item(),
        "ratio_median": ratios.median().item(),
        "ratio_max": ratios.max().item(),
        "padding_share": padding / max(1e-30, sum(float(energy.sum()) for energy in energies)),
        "no_grad_ratio": _ratios(_without_gradients(trainer, batches[0]), read[0], alpha).median().item(),
        "decoded_ratio": _decoding(trainer, read[0], alpha),
        "rank_correlation": torch.corrcoef(ranks)[0, 1].nan_to_num(0.0).item(),
    }


def _in_training(trainer: Any, inputs: dict[str, Any], rank: int = 0) -> Tensor:
    """Return what the last pass of a training step adds, on a rank: both sides read theirs from accelerate."""
    set_seed(trainer.args.seed)  # as every rank does
    last = trainer.strategy.objective.passes
    with mock.patch.object(Accelerator, "process_index", rank):
        return added_by(trainer, lambda: trainer.compute_loss(trainer.model, dict(inputs)), last)[-1]


def _without_gradients(trainer: Any, inputs: dict[str, Any]) -> Tensor:
    """Return what is added where a reference scores the batch, in train mode."""
    known = {name: value for name, value in inputs.items() if name != "labels"}
    with torch.no_grad():
        return added_by(trainer, lambda: trainer.model(**known), last=1)[0]


def _decoding(trainer: Any, batch: Batch, alpha: float) -> float:
    """Return the rms that a decoded token gets in train mode, over the paper's on a document as long as the prompt."""
    prompt = batch.input_ids[batch.real & (batch.document == batch.document[batch.real][0])][None, :PROMPT]
    settings = dict(max_new_tokens=DECODED, do_sample=False, eos_token_id=None, use_cache=True)
    mask = torch.ones_like(prompt)
    calls = added_by(trainer, lambda: trainer.model.generate(input_ids=prompt, attention_mask=mask, **settings))
    decoded = torch.cat([noise[:, -1] for noise in calls[1:]])
    return rms(decoded) * (3 * prompt.shape[1] * decoded.shape[-1]) ** 0.5 / alpha


def added_by(trainer: Any, run: Callable[[], Any], last: int | None = None) -> list[Tensor]:
    """Return what every pass of `run` adds to the embeddings; it ends at pass number `last`."""
    found: list[Tensor] = []

    def look(module: Any, args: tuple[Any, ...], output: Tensor) -> None:
        with torch.no_grad():
            clean = module.forward(*args)  # the plain lookup: hooks run in `__call__` only
        found.append(output.detach().float() - clean.float())
        if len(found) == last:
            raise Seen

    handle = find_embedding(trainer.model).register_forward_hook(look)
    try:
        run()
    except Seen:
        pass
    finally:
        handle.remove()
    return found


def at_real_width(name: str, source: Source, alpha: float) -> dict[str, float | None]:
    """Return signal over noise, and what rounding to the recipe's dtype takes from the noise."""
    real, embeds = source.batch.real, source.embeds
    wanted = (_apply(name, source, embeds.float(), alpha) - embeds.float())[real]
    got = (_apply(name, source, embeds, alpha).float() - embeds.float())[real]
    there = wanted != 0
    if not there.any():
        return {"lost": None, "rounded_ratio": None, "snr_db": None}
    snr = 20 * torch.tensor(rms(embeds.float()[real]) / rms(wanted)).log10()
    lost = float(((got == 0) & there).sum() / there.sum())
    return {"lost": lost, "rounded_ratio": rms(got) / rms(wanted), "snr_db": snr.item()}


def _apply(name: str, source: Source, embeds: Tensor, alpha: float) -> Tensor:
    """Return embeddings with a side's noise, by the code that adds it in training."""
    if name == HOOK:
        return neftune_post_forward_hook(SimpleNamespace(training=True, neftune_noise_alpha=alpha), None, embeds)
    return add_rounded(embeds, source.noise(embeds, source.batch), source.batch)


def _ratios(noise: Tensor, batch: Batch, alpha: float) -> Tensor:
    """Return the rms on every document over alpha / sqrt(3 n D); n and D cancel."""
    return (3 * batch.document_sum(noise.square().sum(-1))[_firsts(batch)]).sqrt() / alpha


def _firsts(batch: Batch) -> Tensor:
    return batch.real & (batch.position == 0)


def rms(values: Tensor) -> float:
    return values.square().mean().sqrt().item()
