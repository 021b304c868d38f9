"""Noise: a function from embeddings and their batch to what is added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from neft_zoo.errors import NoiseError, shown
from neft_zoo.noise.distributions import Distribution, DistributionTraits
from neft_zoo.noise.tokens import Tokens, Where

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from neft_zoo.noise.batch import Batch
    from neft_zoo.noise.scales import Scale

# Which decoder layers, counted from 0; negative numbers count from the end, fractions are of the model's depth.
Layers: TypeAlias = tuple[int | float, ...] | Literal["all"]


@runtime_checkable
class Noise(Protocol):
    """A function from embeddings and their batch to delta, the tensor that is added.

    Delta and not the perturbed embedding, so that mask, bound, sign and logging are the same for every entry. It is
    float32 also for a bf16 model (it is rounded once, where it is added), and 0 on padding. A class that can be drawn
    block by block, or is made of the embeddings, inherits from `NoiseTraits`.
    """

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]: ...


@runtime_checkable
class BlockDraw(Protocol):
    """A function that draws a noise on a stretch of the flattened positions, given their embeddings."""

    def __call__(self, rows: Float[Tensor, "N D"], part: slice, /) -> Float[Tensor, "N D"]: ...


@runtime_checkable
class BlockDrawWithBackward(Protocol):
    """A `BlockDraw` whose delta depends on the embeddings of other positions as well."""

    def __call__(self, rows: Float[Tensor, "N D"], part: slice, /) -> Float[Tensor, "N D"]: ...

    def back(self, grads: Float[Tensor, "T D"], part: slice) -> Float[Tensor, "N D"]:
        """Return the gradient at a stretch of the embeddings, given the gradients at all of delta."""
        ...


class NoiseTraits:
    """What a noise is unless its class says otherwise; a plain function has these defaults.

    Attributes:
        pointwise: whether delta at a position depends on that position alone.
        passes_gradients: whether delta is a function of the embeddings through which gradients flow.
        mixes_documents: whether a document's delta depends on the other documents of the batch.
    """

    pointwise: ClassVar[bool] = False
    passes_gradients: ClassVar[bool] = False
    mixes_documents: ClassVar[bool] = False

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        raise NotImplementedError  # every noise has its own; here for the type of `in_parts`

    def in_parts(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> BlockDraw | None:
        """Return a function that draws a stretch of the positions, None if all must be drawn at once."""
        return (lambda rows, part: self(rows[None], batch.part(part))[0]) if self.pointwise else None


@dataclass(frozen=True)
class AdditiveNoise(NoiseTraits):
    """delta = where * scale * what."""

    what: Distribution
    scale: Scale
    where: Where = Tokens()

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        return self.what(batch, embeds.shape[-1]) * self.size(embeds, batch)

    def size(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L 1"]:
        """Return where * scale."""
        return self.where(batch)[..., None] * self.scale(embeds, batch)

    def in_parts(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> BlockDraw | None:
        if type(self) is not AdditiveNoise or not isinstance(self.what, DistributionTraits):
            return None  # a subclass may draw otherwise
        size, draw = self.size(embeds, batch).reshape(-1, 1), self.what.in_parts(batch, embeds.shape[-1])
        return None if draw is None or size.requires_grad else lambda rows, part: draw(part).mul_(size[part])


@dataclass(frozen=True)
class AtLayers:
    """The same kind of noise, drawn anew, on the input of decoder layers instead of the embedding output."""

    noise: Noise
    layers: Layers = "all"

    def __post_init__(self) -> None:
        numbers = isinstance(self.layers, tuple) and self.layers and all(map(_is_layer, self.layers))
        if self.layers != "all" and not numbers:
            raise NoiseError(
                "layers must be 'all' or a list of layer numbers, or of fractions of the depth between 0 and 1, got "
                f"{shown(self.layers)}."
            )

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        return self.noise(embeds, batch)

    def site(self, layer: int) -> int:
        """Return where the noise on the input of a layer enters, as `Batch.site` counts it."""
        return layer


@dataclass(frozen=True)
class AtPlaceholders(AtLayers):
    """A noise on the image, video and sound features that a model has put in the place of placeholder tokens.

    It enters at the first decoder layer: the input of that one is what the projector made, in every family and after
    whatever a model scales its embeddings by. The text stays clean.
    """

    layers: Layers = (0,)

    def site(self, layer: int) -> int:
        from neft_zoo.noise.batch import PLACEHOLDERS  # late: `neft-zoo list` works without torch

        return PLACEHOLDERS


def _is_layer(value: object) -> bool:
    return type(value) is int or (isinstance(value, float) and 0 < value < 1)


def layer_numbers(layers: Layers, depth: int) -> set[int]:
    """Return the numbers of the chosen layers of a model with so many, counted from 0.

    Raises:
        NoiseError: for a number that the model does not have.
    """
    if layers == "all":
        return set(range(depth))
    for number in layers:
        if not -depth <= number < depth:
            raise NoiseError(f"layers must lie between {-depth} and {depth - 1}, got {number}.")
    return {int(layer * depth) if isinstance(layer, float) else layer % depth for layer in layers}


@runtime_checkable
class TokenEdit(Protocol):
    """Noise on the token ids themselves: returns the ids the model reads instead; labels stay."""

    def edit(self, batch: Batch) -> Int[Tensor, "B L"]: ...
