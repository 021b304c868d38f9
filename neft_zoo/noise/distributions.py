"""WHAT: the distribution of the noise. Each one states its rms, since equal scales do not mean equal energy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from neft_zoo.noise import randomness
from neft_zoo.noise.schedules import check_number

if TYPE_CHECKING:
    from jaxtyping import Float, Int
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


def overrides_draw(kind: type) -> bool:
    """Return whether a class overrides `__call__` of the class that it inherits `in_parts` from."""
    first = next(base for base in kind.__mro__ if {"__call__", "in_parts"} & vars(base).keys())
    return "in_parts" not in vars(first)


class DistributionTraits:
    """The optional members of a distribution and their defaults.

    Attributes:
        pointwise: whether the numbers at a position depend on that position alone, so that any slice of a batch can be
            drawn on its own.
    """

    pointwise: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if overrides_draw(cls):
            cls.in_parts = DistributionTraits.in_parts

    @property
    def bound(self) -> float:
        return math.inf

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        raise NotImplementedError  # overridden by every distribution; declared for the type checker

    def in_parts(self, batch: Batch, width: int) -> Callable[[slice], Float[Tensor, "N D"]] | None:
        """Return a function that draws a slice of the positions, or None if all must be drawn at once."""
        return (lambda part: self(batch.part(part), width)[0]) if self.pointwise else None


class _ByPosition(DistributionTraits):
    """A distribution that draws the numbers at a position from a key of the position."""

    pointwise: ClassVar[bool] = True

    def keys(self, batch: Batch) -> Int[Tensor, "B L"]:
        return batch.stream("what")

    def draw(self, keys: Int[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape D"]:
        raise NotImplementedError  # overridden by every such distribution

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        return self.draw(self.keys(batch), width)

    def in_parts(self, batch: Batch, width: int) -> Callable[[slice], Float[Tensor, "N D"]] | None:
        keys = self.keys(batch).flatten()
        return lambda part: self.draw(keys[part], width)


def _of_rms(numbers: Float[Tensor, "*shape D"], rms: float) -> Float[Tensor, "*shape D"]:
    """Give numbers of rms 1 another rms, in place."""
    return numbers if rms == 1 else numbers.mul_(rms)


@dataclass(frozen=True)
class Uniform(_ByPosition):
    """U(-1, 1): rms 1/sqrt(3), bounded by 1."""

    @property
    def rms(self) -> float:
        return UNIFORM_RMS

    @property
    def bound(self) -> float:
        return 1.0

    def draw(self, keys: Int[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape D"]:
        return randomness.uniform(keys, width)


@dataclass(frozen=True)
class SharedByToken(Uniform):
    """U(-1, 1), with the same numbers for equal tokens within an optimizer step."""

    def keys(self, batch: Batch) -> Int[Tensor, "B L"]:
        keys = randomness.mix(batch.input_ids.long() * randomness.GOLDEN ^ batch.key)
        return randomness.stream(keys, "what")


@dataclass(frozen=True)
class Gaussian(_ByPosition):
    """N(0, rms^2)."""

    rms: float = 1.0

    def __post_init__(self) -> None:
        check_number("rms", self.rms)

    def draw(self, keys: Int[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape D"]:
        return _of_rms(randomness.normal(keys, width), self.rms)


@dataclass(frozen=True)
class Rademacher(_ByPosition):
    """-rms or +rms with equal probability: the largest energy for a given bound."""

    rms: float = 1.0

    def __post_init__(self) -> None:
        check_number("rms", self.rms)

    @property
    def bound(self) -> float:
        return self.rms

    def draw(self, keys: Int[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape D"]:
        return _of_rms(randomness.signs(keys, width), self.rms)


@dataclass(frozen=True)
class Laplace(_ByPosition):
    """Two-sided exponential with the stated rms: the density's scale is rms/sqrt(2)."""

    rms: float = 1.0

    def __post_init__(self) -> None:
        check_number("rms", self.rms)

    def draw(self, keys: Int[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape D"]:
        return _of_rms(randomness.laplace(keys, width), self.rms)


@dataclass(frozen=True)
class Sphere(DistributionTraits):
    """A uniformly random direction per document: its norm over the n real tokens is exactly rms * sqrt(n * D)."""

    rms: float = UNIFORM_RMS

    def __post_init__(self) -> None:
        check_number("rms", self.rms)

    def __call__(self, batch: Batch, width: int) -> Float[Tensor, "B L D"]:
        draw = Sphere.in_parts(self, batch, width)  # not a subclass's, which may draw by this method
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
