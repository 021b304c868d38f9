"""The parts of objectives with an inner loop: a noise as a leaf tensor, and a step along its gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import AtLayers, Noise, TokenEdit
from neft_zoo.objectives.base import Defaults, Family
from neft_zoo.objectives.norm_ball import Ball

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from neft_zoo.noise.batch import Batch
    from neft_zoo.passes.records import Pass
    from neft_zoo.passes.step import Step


@dataclass(frozen=True)
class Leaf:
    """A starting noise as a leaf tensor that requires a gradient; None starts at 0.

    With a ball, the start is projected onto the ball.
    """

    start: Noise | None
    ball: Ball | None = None

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        start = embeds.new_zeros(embeds.shape).float() if self.start is None else self.start(embeds, batch)
        start = start if self.ball is None or self.start is None else self.ball.project(start, embeds, batch)
        return start.detach().requires_grad_()


def leaf(start: Noise | TokenEdit | None, ball: Ball | None = None) -> Noise:
    """Return the start as a leaf, at the sites of `start`."""
    assert not isinstance(start, TokenEdit)  # checked by `takes`
    return replace(start, noise=Leaf(start.noise, ball)) if isinstance(start, AtLayers) else Leaf(start, ball)


def ascend(
    step: Step, done: Pass, gradients: dict[int, Tensor], ball: Ball, size: float, afresh: bool = False
) -> dict[int, Tensor]:
    """Return the perturbations after one ascent step (from 0 if `afresh`) and projection, as new leaves."""
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
    """An objective that requires a gradient with respect to its noise."""

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
