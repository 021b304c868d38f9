"""Noise: a function from embeddings and their batch to what is added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from neft_zoo.errors import NoiseError, shown
from neft_zoo.noise.tokens import Tokens, Where

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from neft_zoo.noise.batch import Batch
    from neft_zoo.noise.distributions import Distribution
    from neft_zoo.noise.scales import Scale

# Which decoder layers, counted from 0; negative numbers count from the end.
Layers: TypeAlias = tuple[int, ...] | Literal["all"]


class Noise(Protocol):
    """Returns delta, not the perturbed embedding: mask, bound, sign and logging are then the same for every entry.

    Delta is float32 also for a bf16 model (it is rounded once, where it is added), and 0 on padding. A noise that
    states `pointwise = True` may be asked for any part of the batch: what it adds at a position depends on no other.
    One that is made of the embeddings and passes gradients to them states `passes_gradients = True` as well.
    """

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]: ...


@dataclass(frozen=True)
class AdditiveNoise:
    """delta = where * scale * what."""

    what: Distribution
    scale: Scale
    where: Where = Tokens()

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        return self.what(batch, embeds.shape[-1]) * self.size(embeds, batch)

    def size(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L 1"]:
        """Return where * scale."""
        return self.where(batch)[..., None] * self.scale(embeds, batch)


@dataclass(frozen=True)
class AtLayers:
    """The same kind of noise, drawn anew, on the input of decoder layers instead of the embedding output."""

    noise: Noise
    layers: Layers = "all"

    def __post_init__(self) -> None:
        numbers = isinstance(self.layers, tuple) and self.layers and all(type(i) is int for i in self.layers)
        if self.layers != "all" and not numbers:
            raise NoiseError(f"layers must be 'all' or a list of layer numbers, got {shown(self.layers)}.")

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        return self.noise(embeds, batch)


@runtime_checkable
class TokenEdit(Protocol):
    """Noise on the token ids themselves: returns the ids the model reads instead; labels stay."""

    def edit(self, batch: Batch) -> Int[Tensor, "B L"]: ...
