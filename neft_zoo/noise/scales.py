"""HOW BIG: the size of the noise at every position, before the distribution's own shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from neft_zoo.errors import NoiseError
from neft_zoo.noise.blocks import token_norms
from neft_zoo.noise.schedules import Scalar, check_scalar, value_at

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.noise.batch import Batch

Length: TypeAlias = Literal["document", "padded"]
Space: TypeAlias = Literal["scaled", "raw"]


@runtime_checkable
class Scale(Protocol):
    """Returns float32 sizes (in the embedding's own unit), one per position."""

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L 1"]: ...


@dataclass(frozen=True)
class ByLength:
    """alpha / sqrt(n * D), NEFTune's scale: every document gets noise of the same expected norm.

    `length="document"` counts the real tokens of the position's document, as the paper's experiments did;
    `"padded"` counts the width of the batch, as transformers' `neftune_noise_alpha` does.

    `space` says what alpha is measured against: `"scaled"` is what the embedding module returns, as in transformers;
    `"raw"` is its table, before the factor of some modules (Gemma: sqrt(D)), which the noise is then multiplied by.
    """

    alpha: Scalar
    length: Length = "document"
    space: Space = "scaled"

    def __post_init__(self) -> None:
        check_scalar("alpha", self.alpha)
        if self.length not in ("document", "padded"):
            raise NoiseError(f"length must be 'document' or 'padded', got {self.length!r}.")
        if self.space not in ("scaled", "raw"):
            raise NoiseError(f"space must be 'scaled' or 'raw', got {self.space!r}.")

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L 1"]:
        lengths = batch.lengths if self.length == "document" else batch.lengths.new_tensor(embeds.shape[1])
        alpha = value_at(self.alpha, batch.progress)
        sizes = alpha / (lengths.float() * embeds.shape[-1]).sqrt()
        sizes = sizes * batch.factor if self.space == "raw" else sizes
        return sizes.expand(embeds.shape[:2])[..., None]


@dataclass(frozen=True)
class Fixed:
    """The same size everywhere."""

    size: Scalar

    def __post_init__(self) -> None:
        check_scalar("size", self.size)

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L 1"]:
        return batch.real.float()[..., None] * value_at(self.size, batch.progress)


@dataclass(frozen=True)
class Relative:
    """rho times the rms of the token's own embedding: the same signal-to-noise ratio on every model."""

    rho: Scalar

    def __post_init__(self) -> None:
        check_scalar("rho", self.rho)

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L 1"]:
        return token_norms(embeds)[..., None] * (value_at(self.rho, batch.progress) / math.sqrt(embeds.shape[-1]))
