"""NoiseStats: rms and signal-to-noise ratio of the noise, step by step."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neft_zoo.noise.batch import PLACEHOLDERS
from neft_zoo.noise.blocks import token_norms
from neft_zoo.noise.schedules import Schedule, value_at
from neft_zoo.passes.step import Step
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.noise_monitor import NoiseMonitor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


class NoiseStats:
    """Accumulates the statistics of steps until they are taken, and feeds the monitor."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy, self.monitor = strategy, NoiseMonitor(strategy)
        self.looked = False  # whether the first noise was checked, before the first optimizer step
        self._values: defaultdict[str, list[Float[Tensor, ""]]] = defaultdict(list)

    def record(self, step: Step) -> None:
        """Measure a step; only the first step's tensors are read at once, since reading waits for the accelerator."""
        values = statistics(self.strategy, step)
        if not self.looked and "snr_db" in values:
            self.looked = True
            self.monitor.check_loudness(values["snr_db"].item())
        for name, value in values.items():
            self._values[name].append(value)
        self.monitor.observe(step)

    def take(self, warn: bool = True) -> dict[str, float]:
        """Return the means of the steps since the last call.

        Args:
            warn: whether the monitor may warn about them.
        """
        means = {name: torch.stack(values).mean().item() for name, values in self._values.items()}
        self._values.clear()
        if warn:
            self.monitor.check(means)
            self.monitor.check_loudness(means.get("snr_db", math.inf))
        return means


def statistics(strategy: Strategy, step: Step) -> dict[str, Float[Tensor, ""]]:
    """Return rms, snr_db and the strategy's current numbers (alpha, rho ...), as 0-d tensors.

    They are measured in the last noisy pass, at its first site, over the real tokens (for noise on placeholders, over
    those). snr_db is 20 log10(embedding rms / noise rms), in decibels, and missing without noise.
    """
    batch = step.batch
    numbers = {
        name: torch.tensor(value_at(value, batch.progress))
        for name, value in strategy.arguments.items()
        if isinstance(value, Schedule) or type(value) is float
    }
    noisy = next((done for done in reversed(step.passes) if done.deltas), None)
    if noisy is None:
        return numbers
    site = min(noisy.deltas)
    embeds = noisy.embeds[site]
    added = noisy.norms[site] if site in noisy.norms else token_norms(noisy.deltas[site])
    noisy_tokens = batch.placeholder if site == PLACEHOLDERS and batch.placeholder is not None else batch.real
    noise, signal = (_rms(norms, noisy_tokens, embeds.shape[-1]) for norms in (added, token_norms(embeds)))
    measured = {"rms": noise, **numbers}
    return measured | ({"snr_db": 20 * (signal / noise).log10()} if noise > 0 else {})


def _rms(norms: Float[Tensor, "B L"], tokens: Bool[Tensor, "B L"], width: int) -> Float[Tensor, ""]:
    return ((norms * tokens).square().sum() / (tokens.sum().clamp(min=1) * width)).sqrt()
