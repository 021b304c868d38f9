"""Objectives with an inner loop: move the noise to where it hurts, then train there."""

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


@dataclass(frozen=True)
class Ascent(Ascends):
    """Projected gradient ascent on the loss; only the last pass trains (PGD).

    Args:
        ball: where the perturbation may be.
        steps: gradient steps K (>= 0); with 0 the start noise is all there is.
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
        if self.steps == 0:
            return step.run(noise).loss
        current = leaf(noise)
        for _ in range(self.steps):
            done = step.run(current)
            gradients = step.gradients(done.loss, done.deltas)
            moved = ascend(step, done, gradients, self.ball, value_at(self.size, step.batch.progress))
            current = step.fixed(moved, noise)
        return step.run(current).loss


@dataclass(frozen=True)
class FreeAscent(Ascends):
    """Ascent whose every pass trains: the parameters get the mean gradient of all K passes (FreeLB).

    Args:
        ball: where the perturbation may be, in every pass.
        steps: passes K (>= 1); with 1 the start noise is all there is, in no ball.
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
        current = leaf(noise, self.ball) if self.steps > 1 else noise
        for _ in range(self.steps - 1):
            done = step.run(current)
            gradients = step.gradients(done.loss, done.deltas, share=1 / self.steps)
            moved = ascend(step, done, gradients, self.ball, value_at(self.size, step.batch.progress))
            current = step.fixed(moved, noise)
        return step.total(step.run(current).loss / self.steps)


@dataclass(frozen=True)
class CleanAndAdversarial(Ascends):
    """CE(e) + CE(e + d) with d one step from 0 to the surface of the ball (FGM)."""

    ball: Ball

    passes = 2

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        clean = step.run(leaf(noise))
        gradients = step.gradients(clean.loss, clean.deltas, share=1.0)
        moved = ascend(step, clean, gradients, self.ball, value_at(self.ball.radius, step.batch.progress))
        return step.total(step.run(step.fixed(moved, noise)).loss)


@dataclass(frozen=True)
class VirtualAdversarial(Ascends, ComparesPredictions):
    """CE(e) + weight * D(clean, e + d), d found by ascent on D from a small random start (SMART, VAT).

    Args:
        ball: where the perturbation may be; its radius really is one.
        divergence: D, of the clean to the perturbed prediction.
        weight: of the divergence (>= 0).
        steps: gradient steps (>= 1).
        size: length of a step (>= 0).
        constant_clean: no gradient flows into the clean side of D.
        power: every step begins at 0 again, so that only the gradient's direction is kept, and the last one goes to
            the surface of the ball (the power iteration of VAT).
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
