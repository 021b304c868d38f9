"""The noise interface, and additive noise: delta = where * scale * what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from neft_zoo.errors import NoiseError, shown
from neft_zoo.noise.distributions import Distribution, DistributionTraits, overrides_draw
from neft_zoo.noise.tokens import Tokens, Where

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from neft_zoo.noise.batch import Batch
    from neft_zoo.noise.scales import Scale

# Decoder layers by number from 0; negative numbers count from the end. Fractions are of the model's depth, and never
# the first layer, whose input is the embeddings, unless it is the only one.
Layers: TypeAlias = tuple[int | float, ...] | Literal["all"]


@runtime_checkable
class Noise(Protocol):
    """Compute delta, the tensor that is added to the embeddings.

    A noise returns delta, not the perturbed embeddings, so masking, bounding, sign flips and logging are shared by all
    entries. Delta is float32 even for a bf16 model (it is rounded once, when it is added) and 0 on padding. Subclass
    `NoiseTraits` if delta can be drawn block by block or is computed from the embeddings.
    """

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]: ...


@runtime_checkable
class BlockDraw(Protocol):
    """Draw the noise for a slice of the flattened positions, given the embeddings of that slice."""

    def __call__(self, rows: Float[Tensor, "N D"], part: slice, /) -> Float[Tensor, "N D"]: ...


@runtime_checkable
class BlockDrawWithBackward(Protocol):
    """A `BlockDraw` whose delta also depends on the embeddings of other positions."""

    def __call__(self, rows: Float[Tensor, "N D"], part: slice, /) -> Float[Tensor, "N D"]: ...

    def back(self, grads: Float[Tensor, "T D"], part: slice) -> Float[Tensor, "N D"]:
        """Return the gradient for a slice of the embeddings, given the gradients of all of delta."""
        ...


class NoiseTraits:
    """The optional members of a noise and their defaults, which hold for a plain function too.

    Attributes:
        pointwise: whether delta at a position depends on that position alone.
        passes_gradients: whether delta is a function of the embeddings that gradients flow through.
        mixes_documents: whether a document's delta depends on the other documents in the batch.
    """

    pointwise: ClassVar[bool] = False
    passes_gradients: ClassVar[bool] = False
    mixes_documents: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if overrides_draw(cls):
            cls.in_parts = NoiseTraits.in_parts

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        raise NotImplementedError  # overridden by every noise; declared for the type checker

    def in_parts(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> BlockDraw | None:
        """Return a function that draws a slice of the positions, or None if all must be drawn at once."""
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
        if not isinstance(self.what, DistributionTraits):
            return None
        size, draw = self.size(embeds, batch).reshape(-1, 1), self.what.in_parts(batch, embeds.shape[-1])
        return None if draw is None or size.requires_grad else lambda rows, part: draw(part).mul_(size[part])


@dataclass(frozen=True)
class AtLayers:
    """The wrapped noise, drawn independently at the inputs of decoder layers instead of at the embedding output."""

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
        """Return the site of the noise at a layer's input, numbered as in `Batch.site`."""
        return layer


@dataclass(frozen=True)
class AtPlaceholders(AtLayers):
    """Noise on the image, video and sound features that replace the placeholder tokens; text gets none.

    It is added at the input of the first decoder layer, which in every model family holds the projector's output,
    after any scaling of the embeddings.
    """

    layers: Layers = (0,)

    def site(self, layer: int) -> int:
        from neft_zoo.noise.batch import PLACEHOLDERS  # late: `neft-zoo list` works without torch

        return PLACEHOLDERS


def _is_layer(value: object) -> bool:
    return type(value) is int or (isinstance(value, float) and 0 < value < 1)


def layer_numbers(layers: Layers, depth: int) -> set[int]:
    """Return the set of chosen layers, numbered from 0, for a model with `depth` layers.

    Raises:
        NoiseError: if a number is outside the model's depth.
    """
    if layers == "all":
        return set(range(depth))
    for number in layers:
        if not -depth <= number < depth:
            raise NoiseError(f"layers must lie between {-depth} and {depth - 1}, got {number}.")
    hidden = min(1, depth - 1)
    return {max(hidden, int(layer * depth)) if isinstance(layer, float) else layer % depth for layer in layers}


@runtime_checkable
class TokenEdit(Protocol):
    """Noise on the token ids: returns the ids that the model reads instead, with the labels unchanged."""

    def edit(self, batch: Batch) -> Int[Tensor, "B L"]: ...
