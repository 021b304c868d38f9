"""WHAT: the distribution of the noise. Each one states its rms, since equal scales do not mean equal energy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from neft_zoo.noise import randomness
from neft_zoo.noise.schedules import check_number

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.noise.batch import Batch

UNIFORM_RMS = 1 / math.sqrt(3)


@runtime_checkable
class Distribution(Protocol):
    """Draw zero-mean float32 numbers, one per position and feature; the caller may write to the returned tensor."""

    @property
    def rms(self) -> float:
        """The root mean square of the numbers (dimensionless)."""
        ...

    @property
    def bound(self) -> float:
        """The largest absolute value of a number (dimensionless); infinite if unbounded."""
        ...

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]: ...


class DistributionTraits:
    """The optional members of a distribution and their defaults.

    Attributes:
        pointwise: whether the numbers at a position depend on that position alone, so that any slice of a batch can be
            drawn on its own.
    """

    pointwise: ClassVar[bool] = False

    @property
    def bound(self) -> float:
        return math.inf

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        raise NotImplementedError  # overridden by every distribution; declared for the type checker

    def in_parts(self, batch: Batch, width: int) -> Callable[[slice], Float[Tensor, "N D"]] | None:
        """Return a function that draws a slice of the positions, or None if all must be drawn at once."""
        return (lambda part: self(batch.part(part), width)[0]) if self.pointwise else None


@dataclass(frozen=True)
class Uniform(DistributionTraits):
    """U(-1, 1): rms 1/sqrt(3), bounded by 1."""

    pointwise: ClassVar[bool] = True

    @property
    def rms(self) -> float:
        return UNIFORM_RMS

    @property
    def bound(self) -> float:
        return 1.0

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        return randomness.uniform(batch.stream("what"), width)


@dataclass(frozen=True)
class SharedByToken(DistributionTraits):
    """U(-1, 1), with the same numbers for equal tokens within an optimizer step."""

    pointwise: ClassVar[bool] = True

    @property
    def rms(self) -> float:
        return UNIFORM_RMS

    @property
    def bound(self) -> float:
        return 1.0

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        keys = randomness.mix(batch.input_ids.long() * randomness.GOLDEN ^ batch.key)
        return randomness.uniform(randomness.stream(keys, "what"), width)


@dataclass(frozen=True)
class Gaussian(DistributionTraits):
    """N(0, rms^2)."""

    rms: float = 1.0

    pointwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("rms", self.rms)

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        return randomness.normal(batch.stream("what"), width).mul_(self.rms)


@dataclass(frozen=True)
class Rademacher(DistributionTraits):
    """-rms or +rms with equal probability: the largest energy for a given bound."""

    rms: float = 1.0

    pointwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("rms", self.rms)

    @property
    def bound(self) -> float:
        return self.rms

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        return randomness.signs(batch.stream("what"), width).mul_(self.rms)


@dataclass(frozen=True)
class Laplace(DistributionTraits):
    """Two-sided exponential with the stated rms: the density's scale is rms/sqrt(2)."""

    rms: float = 1.0

    pointwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("rms", self.rms)

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        return randomness.laplace(batch.stream("what"), width).mul_(self.rms)


@dataclass(frozen=True)
class Sphere(DistributionTraits):
    """A uniformly random direction per document: its norm over the n real tokens is exactly rms * sqrt(n * D)."""

    rms: float = UNIFORM_RMS

    def __post_init__(self) -> None:
        check_number("rms", self.rms)

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        draw = self.in_parts(batch, width)
        return draw(slice(None)).view(*batch.input_ids.shape, width)

    def in_parts(self, batch: Batch, width: int) -> Callable[[slice], Float[Tensor, "N D"]]:
        """Return a function that draws a slice of the positions.

        A document's squared norm is first divided among its tokens by the Dirichlet distribution of the squared norms
        of a random direction's parts. Each token's part is then an independent direction, scaled to its norm as it is
        drawn.
        """
        from torch import linalg  # late: `neft-zoo list` works without it

        keys = batch.stream("what").flatten()
        square = randomness.gamma(batch.stream("length"), batch.stream("accept"), width / 2)
        # A document that is all padding has norm 0.
        share = square / batch.document_sum(square).clamp(min=1e-30)
        norms = (share * batch.lengths * width).sqrt().mul_(self.rms).view(-1, 1)

        def draw(part: slice) -> Float[Tensor, "N D"]:
            direction = randomness.normal(keys[part], width)
            return direction.mul_(norms[part] / linalg.vector_norm(direction, dim=-1, keepdim=True))

        return draw
