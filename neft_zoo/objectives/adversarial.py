"""Objectives with an inner loop: move the noise to where it hurts, then train there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import AtLayers, Noise, TokenEdit
from neft_zoo.noise.schedules import Scalar, check_count, check_scalar, value_at
from neft_zoo.objectives.base import ComparesPredictions, Defaults, Family
from neft_zoo.objectives.norm_ball import Ball

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from neft_zoo.noise.batch import Batch
    from neft_zoo.passes.divergences import Divergence
    from neft_zoo.passes.records import Pass
    from neft_zoo.passes.step import Step


@dataclass(frozen=True)
class Leaf:
    """A start noise as an independent variable that a gradient can be taken at; None starts at 0.

    With a ball, the start is projected into it.
    """

    start: Noise | None
    ball: Ball | None = None

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        start = embeds.new_zeros(embeds.shape).float() if self.start is None else self.start(embeds, batch)
        start = start if self.ball is None else self.ball.project(start, embeds, batch)
        return start.detach().requires_grad_()


def leaf(start: Noise | TokenEdit | None, ball: Ball | None = None) -> Noise:
    """Return the start as a leaf, at the sites of `start`."""
    assert not isinstance(start, TokenEdit)  # as `takes` has seen
    return replace(start, noise=Leaf(start.noise, ball)) if isinstance(start, AtLayers) else Leaf(start, ball)


def ascend(
    step: Step, done: Pass, gradients: dict[int, Tensor], ball: Ball, size: float, afresh: bool = False
) -> dict[int, Tensor]:
    """Return the perturbations one step of length `size` further up, from 0 if `afresh`, in the ball, as leaves."""
    ups = ball.ups(gradients, step.batch)
    moved = {}
    for site, delta in done.deltas.items():
        embeds = done.embeds[site]
        stride = size * ball.unit(embeds, step.batch)
        up = stride * ups[site]
        higher = up if afresh else delta.detach() + up
        moved[site] = ball.project(higher, embeds, step.batch).requires_grad_()
    return moved


class Ascends(Defaults):
    """An objective that needs a gradient at its noise."""

    family: ClassVar[Family] = "adversarial"
    site: ClassVar[str] = "embeddings"

    def check(self, model: nn.Module) -> None:
        from neft_zoo.passes.anatomy import checkpoints_reentrantly  # late: `neft-zoo list` works without torch

        super().check(model)
        if checkpoints_reentrantly(model):
            raise NoiseError(
                "use_reentrant must be false in the model's gradient checkpointing with an ascent, which takes "
                "gradients at the noise, got true."
            )

    def takes(self, noise: Noise | TokenEdit | None) -> None:
        if isinstance(noise, TokenEdit):
            raise NoiseError(f"an ascent must start from a noise on embeddings or layers, got {noise!r}.")


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
