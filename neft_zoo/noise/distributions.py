"""WHAT: the shape of the noise. Each states its rms, since equal scales are not equal energies."""

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
    """Zero-mean float32 numbers, one per position and feature; the tensor that is returned may be written to."""

    @property
    def rms(self) -> float:
        """The root mean square of the numbers (dimensionless)."""
        ...

    @property
    def bound(self) -> float:
        """The largest absolute value of a number (dimensionless); infinite where there is none."""
        ...

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]: ...


class DistributionTraits:
    """What a distribution is unless its class says otherwise.

    Attributes:
        pointwise: whether the numbers at a position depend on that position alone, so that any stretch of a batch can
            be drawn without the rest.
    """

    pointwise: ClassVar[bool] = False

    @property
    def bound(self) -> float:
        return math.inf

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        raise NotImplementedError  # every distribution has its own; here for the type of `in_parts`

    def in_parts(self, batch: Batch, width: int) -> Callable[[slice], Float[Tensor, "N D"]] | None:
        """Return a function that draws a stretch of the positions, None if all must be drawn at once."""
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
    """U(-1, 1), the same numbers for equal tokens of an optimizer step."""

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
    """-rms or +rms with equal probability: the largest energy a bound allows."""

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
    """A uniformly random direction per document: over its n real tokens the norm is exactly rms * sqrt(n * D)."""

    rms: float = UNIFORM_RMS

    def __post_init__(self) -> None:
        check_number("rms", self.rms)

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        draw = self.in_parts(batch, width)
        return draw(slice(None)).view(*batch.input_ids.shape, width)

    def in_parts(self, batch: Batch, width: int) -> Callable[[slice], Float[Tensor, "N D"]]:
        """Return a function that draws a stretch of the positions.

        A document's square norm is shared out first, by the Dirichlet distribution that the squares of a direction's
        parts have; each token's part is then a direction of its own, whose norm is seen as it is drawn.
        """
        from torch import linalg  # late: `neft-zoo list` works without it

        keys = batch.stream("what").flatten()
        square = randomness.gamma(batch.stream("length"), batch.stream("accept"), width / 2)
        # Padding may hold a document without a real token, hence without a norm.
        share = square / batch.document_sum(square).clamp(min=1e-30)
        norms = (share * batch.lengths * width).sqrt().mul_(self.rms).view(-1, 1)

        def draw(part: slice) -> Float[Tensor, "N D"]:
            direction = randomness.normal(keys[part], width)
            return direction.mul_(norms[part] / linalg.vector_norm(direction, dim=-1, keepdim=True))

        return draw
