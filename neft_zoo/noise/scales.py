"""HOW BIG: the size of the noise at every position, which multiplies the numbers of the distribution."""

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
    """Return a float32 size per position, in the embedding's own unit."""

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L 1"]: ...


@dataclass(frozen=True)
class ByLength:
    """alpha / sqrt(n * D), NEFTune's scale, which gives every document noise of the same expected norm.

    Args:
        alpha: strength (dimensionless, >= 0).
        length: what n counts: `"document"`, the real tokens of the document, as in the paper's experiments, or
            `"padded"`, the width of the batch, as in transformers' `neftune_noise_alpha`.
        space: what alpha is relative to: `"scaled"`, the output of the embedding module, as in transformers, or
            `"raw"`, the embedding table. Under `"raw"` the noise is multiplied by the module's factor, if it has one
            (Gemma: sqrt(D)).
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
    """The same size at every position."""

    size: Scalar

    def __post_init__(self) -> None:
        check_scalar("size", self.size)

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L 1"]:
        return batch.real.float()[..., None] * value_at(self.size, batch.progress)


@dataclass(frozen=True)
class Relative:
    """rho times the rms of the embedding, for the same signal-to-noise ratio on every model.

    Args:
        rho: noise rms over embedding rms (dimensionless, >= 0).
        per: whose rms: `"token"`, the token's own, or `"document"`, the mean over the tokens of the document.
    """

    rho: Scalar
    per: Literal["token", "document"] = "token"

    def __post_init__(self) -> None:
        check_scalar("rho", self.rho)
        if self.per not in ("token", "document"):
            raise NoiseError(f"per must be 'token' or 'document', got {self.per!r}.")

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L 1"]:
        norms = token_norms(embeds)
        norms = batch.document_sum(norms) / batch.lengths.clamp(min=1) if self.per == "document" else norms
        return norms[..., None] * (value_at(self.rho, batch.progress) / math.sqrt(embeds.shape[-1]))
