"""NoiseMonitor: warns, once per run, about noise that does not reach the model or drowns the embeddings."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import fields, is_dataclass

import torch

from neft_zoo.errors import NoiseWarning
from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.schedules import Scalar, Schedule, value_at
from neft_zoo.noise.tokens import Where
from neft_zoo.passes.step import Step
from neft_zoo.registry.strategy import Strategy

PATIENCE = 8  # consecutive steps, since a single batch may have no prompt


class NoiseMonitor:
    """Warns once if noise reaches no token, or is too small for 16 bits, for several steps in a row.

    Tensors are read only when a line is logged. A schedule is checked only while it is above half of its peak.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.name = strategy.name
        self.additive = _additive(strategy.noise)
        ball = getattr(strategy.objective, "ball", None) if self.additive is None else None
        bounded = self.additive if ball is None else ball  # what says where there is noise
        self.where: Where | None = None if bounded is None else bounded.where
        strength = _strength(self.additive) if ball is None else ball.radius
        schedules = [value for value in strategy.arguments.values() if isinstance(value, Schedule)]
        numbers = schedules if strength is None else [*schedules, strength]
        self.peaks = [(number, max(value_at(number, i / 100) for i in range(101))) for number in numbers]
        self.positive = strength is not None and self.peaks[-1][1] > 0
        self.dtype: torch.dtype | None = None
        self.reached: list[torch.Tensor] = []
        self.steps = self.bad_steps = 0
        self.at_strength, self.warned = True, False
        self.loud = False  # whether it has warned about loud noise

    def observe(self, step: Step) -> None:
        """Record a step without reading its tensors."""
        if self.warned:
            return
        progress = step.batch.progress
        self.at_strength &= all(value_at(number, progress) >= peak / 2 for number, peak in self.peaks)
        self.dtype = next((embeds.dtype for done in step.passes for embeds in done.embeds.values()), None)
        self.steps += 1
        if self.where is not None:
            # A first token is never graded and would count as a prompt.
            self.reached.append((self.where(step.batch) * (step.batch.position > 0)).any())

    def check_loudness(self, snr_db: float) -> None:
        """Warn, once, about noise that is louder than the embeddings; called before the step's gradients are used."""
        if self.additive is not None and snr_db < 0 and not self.loud:
            self.loud = True
            warnings.warn(
                f"noise/snr_db is {snr_db:.0f}: the noise of {self.name} is louder than the embeddings that it is "
                "added to; neft-zoo alpha finds a strength that suits the model.",
                NoiseWarning,
                stacklevel=4,
            )

    def check(self, means: Mapping[str, float]) -> None:
        """Warn, if it is time to, given the mean statistics of the steps since the last call."""
        complaint = None if self.warned or not self.at_strength else self._complaint(means)
        self.bad_steps = self.bad_steps + self.steps if complaint else 0
        self.steps, self.at_strength = 0, True
        self.reached.clear()
        if complaint and self.bad_steps >= PATIENCE:
            self.warned = True
            warnings.warn(complaint, NoiseWarning, stacklevel=4)

    def _complaint(self, means: Mapping[str, float]) -> str | None:
        rms, reached = means.get("rms"), self.reached and bool(torch.stack(self.reached).any())
        silent = rms == 0 and self.additive is not None  # an ascent stays at 0 where the loss has no gradient
        if self.positive and rms is not None and (silent or not reached):
            return (
                f"noise/rms is {rms:.2g} although {self.name} has a strength above 0: it reaches no token beyond the "
                "first of each document; check which labels are ignored, or take a noise for all tokens, such as "
                "neft_uniform."
            )
        if means.get("snr_db", -math.inf) > rounding_limit_db(self.dtype):
            return (
                f"noise/snr_db is {means['snr_db']:.0f}: rounding to {str(self.dtype).removeprefix('torch.')} "
                f"leaves more than half of the coordinates without the noise of {self.name}; take token_relative, a "
                "larger alpha, or neft_uniform with space='raw' where the model scales its embeddings."
            )
        return None


def rounding_limit_db(dtype: torch.dtype | None) -> float:
    """Return the snr_db above which rounding drops half of the coordinates: that of noise at a quarter of epsilon.

    It is infinite without a 16-bit dtype. Rounding steps are proportional to the numbers, and half of the coordinates
    lie below 0.7 of their rms, so the limit is a quarter of epsilon and not half.
    """
    if dtype not in (torch.bfloat16, torch.float16):
        return math.inf
    return 20 * math.log10(4 / torch.finfo(dtype).eps)


def _additive(noise: object) -> AdditiveNoise | None:
    """Return the additive noise that a noise is or wraps, or None."""
    while noise is not None and not isinstance(noise, AdditiveNoise):
        noise = getattr(noise, "noise", None)
    return noise


def _strength(noise: AdditiveNoise | None) -> Scalar | None:
    """Return the number that an additive noise is proportional to: the first field of its scale."""
    scale: object = None if noise is None else noise.scale
    number = getattr(scale, fields(scale)[0].name) if is_dataclass(scale) else None
    return number if isinstance(number, int | float | Schedule) else None
