"""What every strategy adds to a few documents, recorded in one step each on the shipped model."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from neft_zoo import NoiseError, registry
from neft_zoo.config import recipe
from neft_zoo.noise.additive import AdditiveNoise, TokenEdit
from neft_zoo.noise.batch import Batch
from neft_zoo.noise.schedules import Schedule
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.loop import attach, model_loss
from neft_zoo.training.session import NoiseSession

LENGTHS = (8, 16, 32, 32, 64)  # two of equal length, for the entry that mixes such documents
LOOKED_AT, STEPS_AT_MOST = 2, 3  # the document whose token is shown; maximum ascent steps, which cost a pass each
PROGRESS = 0.5


@dataclass(frozen=True)
class Trace:
    """The recorded noise of a strategy.

    Attributes:
        strategy: as it was run: with fewer ascent steps, and on layers that the small model has.
        token: delta of one token, per feature.
        bound: largest value of a feature, or None if unbounded.
        norms: per document: length, norm over all its tokens, mean norm of a token.
        edited: for strategies that edit tokens, the tokens of one document: "prompt", "graded" or "hidden".
        weights: for strategies that change weights, the change of one matrix over its standard deviation.
    """

    strategy: Strategy
    token: list[float] | None = None
    bound: float | None = None
    norms: tuple[tuple[int, float, float], ...] = ()
    edited: tuple[str, ...] = ()
    weights: list[float] | None = None


@cache
def model() -> Any:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(recipe.folder() / "quickstart/model", dtype=torch.float32).train()


@cache
def documents() -> tuple[dict[str, torch.Tensor], Any, torch.Tensor]:
    """Return a padded batch of real text, its tokenizer, and the count of each token."""
    folder = recipe.folder() / "quickstart"
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    with open(folder / "data/train.jsonl", encoding="utf-8") as file:
        text = " ".join(json.loads(next(file))["completion"][0]["content"] for _ in range(40))
    ids = torch.tensor(tokenizer(text, verbose=False)["input_ids"])
    rows = torch.full((len(LENGTHS), max(LENGTHS)), tokenizer.pad_token_id)
    real, labels, start = torch.zeros_like(rows), torch.full_like(rows, -100), 0
    for row, length in enumerate(LENGTHS):
        rows[row, :length], real[row, :length] = ids[start : start + length], 1
        labels[row, length // 2 : length] = rows[row, length // 2 : length]
        start += length
    counts = torch.bincount(ids, minlength=len(tokenizer))
    return {"input_ids": rows, "attention_mask": real, "labels": labels}, tokenizer, counts


def small(name: str) -> Strategy:
    """Return a strategy with few ascent steps, on layers that the shipped model has."""
    arguments = registry.make(name).to_dict()
    if isinstance(arguments.get("layers"), list):
        arguments["layers"] = [min(layer, model().config.num_hidden_layers - 1) for layer in arguments["layers"]]
    if "steps" in arguments:
        arguments["steps"] = min(arguments["steps"], STEPS_AT_MOST)
    return registry.make(arguments)


@cache
def trace(name: str) -> Trace:
    """Return the noise of a strategy half-way through training."""
    strategy = small(name)
    if strategy.weights is not None:
        try:
            return Trace(strategy, weights=_weights(strategy))
        except NoiseError:  # on adapters, which the shipped model does not have
            return Trace(strategy)
    if strategy.site in ("dropout", "labels", "placeholders") or strategy.clean:  # a text model without an adapter
        return Trace(strategy)
    inputs, tokenizer, counts = documents()
    session = NoiseSession(model(), strategy, tokenizer=tokenizer, token_counts=counts)
    try:
        batch = session.batch(inputs, 1, PROGRESS)
        if isinstance(strategy.noise, TokenEdit):
            return Trace(strategy, edited=_edited(strategy.noise.edit(batch), batch))
        step = session.step(inputs, lambda given: model_loss(model(), given), key=1, progress=PROGRESS)
        session.run(step)
    finally:
        session.detach()
    noisy = next((done for done in reversed(step.passes) if done.deltas), None)
    if noisy is None:  # it changes the weights
        return Trace(strategy)
    delta = noisy.deltas[min(noisy.deltas)].detach().float()
    energies = delta.square().sum(-1)
    norms = tuple(
        (length, energies[row, :length].sum().sqrt().item(), energies[row, :length].sqrt().mean().item())
        for row, length in enumerate(LENGTHS)
    )
    loudest = int(energies[LOOKED_AT, : LENGTHS[LOOKED_AT]].argmax())
    place = LENGTHS[LOOKED_AT] * 3 // 4
    place = place if energies[LOOKED_AT, place] > 0 else loudest  # a cut may not have changed this token
    return Trace(strategy, delta[LOOKED_AT, place].tolist(), _bound(strategy, delta, batch), norms)


def _bound(strategy: Strategy, delta: torch.Tensor, batch: Batch) -> float | None:
    """Return the bound on a feature, if the noise has one: the scale of a bounded distribution."""
    noise = strategy.noise
    if strategy.family == "adversarial" or not isinstance(noise, AdditiveNoise):
        return None
    if math.isinf(noise.what.bound):
        return None
    row = slice(LOOKED_AT, LOOKED_AT + 1)
    at = replace(batch, progress=PROGRESS)
    return noise.what.bound * float(noise.scale(torch.zeros_like(delta), at)[row].max())


def _edited(ids: torch.Tensor, batch: Batch) -> tuple[str, ...]:
    assert batch.graded is not None
    row, last = len(LENGTHS) - 1, LENGTHS[-1]
    hidden, graded = (ids != batch.input_ids)[row, :last], batch.graded[row, :last]
    return tuple("hidden" if h else "graded" if g else "prompt" for h, g in zip(hidden, graded, strict=True))


def _weights(strategy: Strategy) -> list[float]:
    weight = model().model.layers[0].mlp.up_proj.weight
    before = weight.detach().clone()
    handle = attach(model(), strategy, total_steps=1)
    try:
        handle.begin()
        with handle.perturbed(step=1):  # at the end of training, where increasing noise is largest
            change = (weight.detach() - before) / before.std()
    finally:
        handle.detach()
        model.cache_clear()  # the weights have changed
    return change.flatten()[:20000].tolist()


def schedule(strategy: Strategy) -> tuple[str, Schedule] | None:
    """Return the argument that is a schedule by default, if there is one."""
    return next(((k, v) for k, v in strategy.arguments.items() if isinstance(v, Schedule)), None)
