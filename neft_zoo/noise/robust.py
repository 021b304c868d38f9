"""Noise in proportion to the spread of a token's own coordinates, largest for those near the median."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from neft_zoo.noise import randomness
from neft_zoo.noise.additive import Noise
from neft_zoo.noise.schedules import Scalar, check_number, check_scalar, value_at

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.noise.batch import Batch

GUARD = 1e-6  # from the published code; keeps 0 / 0 at 0
LARGEST = 5.0


@dataclass(frozen=True)
class RobustNoise:
    """N(0, 1) times the token's median absolute deviation, weighted towards its median, with more on varied tokens.

    Per coordinate: size / sqrt(D) * mad * exp(-beta * |h - median| / mad) * min(5, exp(var / mean var)), where median,
    mad and var are over the token's D coordinates, and the mean is over the real tokens of its document. The noise is
    detached from the embeddings.
    """

    size: Scalar
    beta: float

    def __post_init__(self) -> None:
        check_scalar("size", self.size)
        check_number("beta", self.beta)

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        from torch import linalg  # late: `neft-zoo list` works without it

        hidden, width = embeds.detach().float(), embeds.shape[-1]
        spread = (hidden - hidden.median(-1, keepdim=True).values).abs()
        mad = spread.median(-1, keepdim=True).values
        mad = mad.maximum(GUARD * linalg.vector_norm(hidden, dim=-1, keepdim=True))
        variance = hidden.var(-1)
        mean = batch.document_sum(variance) / batch.lengths
        varied = (variance / (mean + GUARD)).exp().clamp(max=LARGEST) * batch.real
        weight = (-self.beta * spread / (mad + GUARD)).exp_()
        size = value_at(self.size, batch.progress) / math.sqrt(width)
        return randomness.normal(batch.stream("what"), width).mul_(weight).mul_(mad * varied[..., None] * size)


@dataclass(frozen=True)
class Redrawn:
    """An independent second draw of a noise."""

    noise: Noise

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        return self.noise(embeds, replace(batch, keys=batch.stream("another draw")))
