"""Objectives: how one training step spends its forward passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.noise import Noise


@dataclass
class Pass:
    """What one forward pass left behind; `delta` is None where nothing was added."""

    loss: Tensor | None = None
    delta: Float[Tensor, "B L D"] | None = None
    embeds: Float[Tensor, "B L D"] | None = None
    outputs: Any = None


# One pass of the trainer's own loss with this noise; `None` is a clean pass.
Forward: TypeAlias = "Callable[[Noise | None], Pass]"


class Objective(Protocol):
    """Turns passes into the loss of the step; it never sees the trainer behind `forward`."""

    def __call__(self, forward: Forward, noise: Noise | None) -> Float[Tensor, ""]: ...


@dataclass(frozen=True)
class SinglePass:
    """The trainer's own loss on noisy embeddings: one forward, one backward."""

    def __call__(self, forward: Forward, noise: Noise | None) -> Float[Tensor, ""]:
        loss = forward(noise).loss
        assert loss is not None  # `forward` always fills it
        return loss
