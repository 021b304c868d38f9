"""What the logits of passes amount to at every position, for `neft_zoo.chunks` to sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from neft_zoo.chunks import Part
from neft_zoo.divergences import Divergence, divergence

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def cross_entropy(logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Return the negative log-likelihood of the targets, 0 where there is none."""
    return nn.functional.cross_entropy(logits, targets, reduction="none")


def of_divergence(
    name: Divergence, constant: bool, first: Float[Tensor, "N V"], second: Float[Tensor, "N V"]
) -> Float[Tensor, " N"]:
    """Return the divergence, through which no gradient flows into a constant first side."""
    return divergence(name, first.detach() if constant else first, second)


@dataclass(frozen=True)
class Together:
    """Own losses of passes, and what else a part makes of the same logits.

    Attributes:
        part: what else.
        sides: how many passes there are.
        losses: by the number of the pass, the factor of its loss.
        weight: the factor of what the part makes.
    """

    part: Part
    sides: int
    losses: Mapping[int, float | Tensor]
    weight: float | Tensor

    def __call__(self, *chunk: Tensor) -> Float[Tensor, " N"]:
        """Take the logits of every side, the targets, which positions the part counts, and what else it is told."""
        logits, (targets, counted, *known) = chunk[: self.sides], chunk[self.sides :]
        own = [share * cross_entropy(logits[number], targets) for number, share in self.losses.items()]
        return sum(own, start=self.weight * self.part(*logits, *known) * counted)
