"""Objectives with an inner loop: perturb the input towards higher loss, then train on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neft_zoo.noise.additive import Noise, TokenEdit
from neft_zoo.noise.schedules import Scalar, check_count, check_scalar, value_at
from neft_zoo.objectives.ascent import Ascends, ascend, leaf
from neft_zoo.objectives.base import ComparesPredictions
from neft_zoo.objectives.norm_ball import Ball

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.passes.divergences import Divergence
    from neft_zoo.passes.step import Step

# Of a search for a direction, which rounding errors would determine if it started closer; the VAT paper's own.
SMALLEST_START = 1e-6


@dataclass(frozen=True)
class Ascent(Ascends):
    """Projected gradient ascent on the loss; only the last pass trains the model (PGD).

    Args:
        ball: the set of allowed perturbations, the start included.
        steps: gradient steps K (>= 0); with 0, the start alone is used.
        size: length of a step (>= 0).
    """

    ball: Ball
    steps: int = 2
    size: Scalar = 0.1

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_scalar("size", self.size)

    @property
    def passes(self) -> int:
        return self.steps + 1

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        current = leaf(noise, self.ball)
        for _ in range(self.steps):
            done = step.run(current)
            gradients = step.gradients(done.loss, done.deltas)
            moved = ascend(step, done, gradients, self.ball, value_at(self.size, step.batch.progress))
            current = step.fixed(moved, noise)
        return step.run(current).loss


@dataclass(frozen=True)
class FreeAscent(Ascends):
    """Gradient ascent in which every pass trains: the parameters get the mean gradient of all K passes (FreeLB).

    Args:
        ball: the set of allowed perturbations, in every pass.
        steps: passes K (>= 1); with 1, the start alone is used.
        size: length of a step (>= 0).
    """

    ball: Ball
    steps: int = 2
    size: Scalar = 0.1

    def __post_init__(self) -> None:
        check_count("steps", self.steps, 1)
        check_scalar("size", self.size)

    @property
    def passes(self) -> int:
        return self.steps

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        current = leaf(noise, self.ball)
        for _ in range(self.steps - 1):
            done = step.run(current)
            gradients = step.gradients(done.loss, done.deltas, share=1 / self.steps)
            moved = ascend(step, done, gradients, self.ball, value_at(self.size, step.batch.progress))
            current = step.fixed(moved, noise)
        return step.total(step.run(current).loss / self.steps)


@dataclass(frozen=True)
class CleanAndAdversarial(Ascends):
    """CE(e) + CE(e + d), where d is one step from 0 to the surface of the ball (FGM)."""

    ball: Ball

    passes = 2

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        clean = step.run(leaf(noise))
        gradients = step.gradients(clean.loss, clean.deltas, share=1.0)
        moved = ascend(step, clean, gradients, self.ball, value_at(self.ball.radius, step.batch.progress))
        return step.total(step.run(step.fixed(moved, noise)).loss)


@dataclass(frozen=True)
class VirtualAdversarial(Ascends, ComparesPredictions):
    """CE(e) + weight * D(clean, e + d), with d found by ascent on D from a small random start (SMART, VAT).

    Args:
        ball: the set of allowed perturbations; its radius is a true bound.
        divergence: D, from the clean to the perturbed prediction.
        weight: of the divergence (>= 0).
        steps: gradient steps (>= 1).
        size: length of a step (>= 0).
        constant_clean: whether to detach the clean side of D.
        power: whether to restart every step at 0, which keeps only the gradient's direction, and put the last step on
            the surface of the ball (VAT's power iteration).
    """

    ball: Ball
    divergence: Divergence = "symmetric_kl"
    weight: Scalar = 1.0
    steps: int = 1
    size: Scalar = 1e-3
    constant_clean: bool = False
    power: bool = False

    def __post_init__(self) -> None:
        check_scalar("weight", self.weight)
        check_count("steps", self.steps, 1)
        check_scalar("size", self.size)

    @property
    def passes(self) -> int:
        return self.steps + 2

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        clean, current = step.run(None), leaf(noise)
        for number in range(1, self.steps + 1):
            done = step.run(current)
            apart = step.divergence(self.divergence, clean, done, constant=True, trains=False)
            gradients = step.gradients(apart, done.deltas)
            last = self.power and number == self.steps
            size = value_at(self.ball.radius if last else self.size, step.batch.progress)
            current = step.fixed(ascend(step, done, gradients, self.ball, size, afresh=self.power), noise)
        worst = step.run(current)
        weight = value_at(self.weight, step.batch.progress)
        return step.with_divergence({0: 1.0}, weight, self.divergence, clean, worst, self.constant_clean)
