"""WHAT: the shape of the noise. Each states its rms, since equal scales are not equal energies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from neft_zoo import randomness
from neft_zoo.schedules import check_number

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.batch import Batch

UNIFORM_RMS = 1 / math.sqrt(3)


class Distribution(Protocol):
    """Draws zero-mean float32 numbers; `rms` is their root mean square (dimensionless).

    One that also states `pointwise = True` may be asked for any part of the batch: what it draws at a position depends
    on no other. One that must look at all positions first may offer `in_parts`, as `Sphere` does. What a distribution
    returns may be written to.
    """

    @property
    def rms(self) -> float: ...

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]: ...


@dataclass(frozen=True)
class Uniform:
    """U(-1, 1): rms 1/sqrt(3), bounded by 1."""

    pointwise: ClassVar[bool] = True

    @property
    def rms(self) -> float:
        return UNIFORM_RMS

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        return randomness.uniform(batch.stream("what"), width)


@dataclass(frozen=True)
class SharedByToken:
    """U(-1, 1), the same numbers for equal tokens of an optimizer step."""

    pointwise: ClassVar[bool] = True

    @property
    def rms(self) -> float:
        return UNIFORM_RMS

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        keys = randomness.mix(batch.input_ids.long() * randomness.GOLDEN ^ batch.key)
        return randomness.uniform(randomness.stream(keys, "what"), width)


@dataclass(frozen=True)
class Gaussian:
    """N(0, rms^2)."""

    rms: float = 1.0

    pointwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("rms", self.rms)

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        return randomness.normal(batch.stream("what"), width).mul_(self.rms)


@dataclass(frozen=True)
class Rademacher:
    """-rms or +rms with equal probability: the largest energy a bound allows."""

    rms: float = 1.0

    pointwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("rms", self.rms)

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        return randomness.signs(batch.stream("what"), width).mul_(self.rms)


@dataclass(frozen=True)
class Laplace:
    """Two-sided exponential with the stated rms: the density's scale is rms/sqrt(2)."""

    rms: float = 1.0

    pointwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("rms", self.rms)

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        return randomness.laplace(batch.stream("what"), width).mul_(self.rms)


@dataclass(frozen=True)
class Sphere:
    """A uniformly random direction per document: over its n real tokens the norm is exactly rms * sqrt(n * D)."""

    rms: float = UNIFORM_RMS

    def __post_init__(self) -> None:
        check_number("rms", self.rms)

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        draw = self.in_parts(batch, width)
        return draw(slice(None)).view(*batch.input_ids.shape, width)

    def in_parts(self, batch: Batch, width: int) -> Callable[[slice], Float[Tensor, "N D"]]:
        """Return what draws a stretch of the positions; all are drawn before, for the norm, but never held at once."""
        from torch import cat, linalg  # late: `neft-zoo list` works without it

        keys = batch.stream("what").flatten()
        cut = randomness.blocks(len(keys), width, keys.device.type)
        norms = cat([linalg.vector_norm(randomness.normal(keys[block], width), dim=-1) for block in cut])
        squares = norms.view(batch.input_ids.shape).square() / width
        mean_square = batch.document_sum(squares) / batch.lengths
        # Padding may hold a document without a real token, hence without a norm.
        scale = (self.rms / mean_square.clamp(min=1e-30).sqrt()).view(-1, 1)
        return lambda part: randomness.normal(keys[part], width).mul_(scale[part])
