"""Noise: a function from embeddings and their batch to what is added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from neft_zoo.tokens import Tokens, Where

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.batch import Batch
    from neft_zoo.distributions import Distribution
    from neft_zoo.scales import Scale


class Noise(Protocol):
    """Returns delta, not the perturbed embedding: mask, bound, sign and logging are then the same for every entry.

    Delta is float32 also for a bf16 model (it is rounded once, where it is added), and 0 on padding.
    """

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]: ...


@dataclass(frozen=True)
class AdditiveNoise:
    """delta = where * scale * what."""

    what: Distribution
    scale: Scale
    where: Where = Tokens()

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        size = self.where(batch)[..., None] * self.scale(embeds, batch)
        return self.what(batch, embeds.shape[-1]) * size
