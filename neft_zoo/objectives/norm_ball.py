"""The ball that bounds a perturbation, and the direction of steepest ascent inside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from neft_zoo.errors import NoiseError
from neft_zoo.noise.schedules import Scalar, check_scalar, value_at
from neft_zoo.noise.tokens import Tokens, Where

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.noise.batch import Batch

Norm: TypeAlias = Literal["document", "token", "coordinate"]
Direction: TypeAlias = Literal["gradient", "sign"]
SMALLEST = 1e-30  # avoids 0 / 0; not a radius


@dataclass(frozen=True)
class Ball:
    """The set of allowed perturbations, and the direction of ascent.

    Args:
        radius: largest norm, in the embedding's own unit; 0 allows no perturbation.
        norm: the L2 norm of a whole document (over its real tokens) or of each token, or the absolute value of each
            coordinate.
        direction: `gradient`, divided by its norm (for coordinates, by the document's largest entry), or its `sign`
            per coordinate (a token's step then has norm 1).
        relative: whether radius and step are fractions of the mean L2 norm of the document's embeddings; for
            coordinates, of that norm over sqrt(D).
        where: the tokens that may be perturbed.
        joint: whether a step's norm is taken over all sites together, so that sites with larger gradients move
            further.
    """

    radius: Scalar
    norm: Norm = "document"
    direction: Direction = "gradient"
    relative: bool = False
    where: Where = Tokens()
    joint: bool = False

    def __post_init__(self) -> None:
        check_scalar("radius", self.radius)
        if self.norm not in get_args(Norm):
            raise NoiseError(f"norm must be one of {', '.join(get_args(Norm))}, got {self.norm!r}.")
        if self.direction not in get_args(Direction):
            raise NoiseError(f"direction must be one of {', '.join(get_args(Direction))}, got {self.direction!r}.")

    def length(self, values: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L #D"]:
        """Return the norm of the document or the token at every position, or of every coordinate."""
        if self.norm == "coordinate":
            return values.abs()
        squares = values.square().sum(-1)
        return (batch.document_sum(squares) if self.norm == "document" else squares).sqrt()[..., None]

    def up(self, gradient: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        """Return the direction of steepest ascent, 0 outside `where` and where the gradient is 0."""
        gradient = gradient.float() * self.where(batch)[..., None]
        if self.direction == "sign":
            return gradient.sign() / math.sqrt(gradient.shape[-1])
        # Rescaled by the largest entry first, since the square of a gradient of 1e-25 is 0.
        largest = gradient.abs().amax(-1)
        largest = largest if self.norm == "token" else batch.document_max(largest)
        gradient = gradient / largest[..., None].clamp(min=SMALLEST)
        if self.norm == "coordinate":
            return gradient
        return gradient / self.length(gradient, batch).clamp(min=SMALLEST)

    def ups(self, gradients: Mapping[int, Float[Tensor, "B L D"]], batch: Batch) -> dict[int, Float[Tensor, "B L D"]]:
        """Return the direction of steepest ascent at every site; if `joint`, their joint norm is 1."""
        ups = {site: self.up(gradient, batch) for site, gradient in gradients.items()}
        if not self.joint:
            return ups
        largest = max(gradient.abs().max() for gradient in gradients.values()).clamp(min=SMALLEST)
        masked = ((site, gradient / largest * self.where(batch)[..., None]) for site, gradient in gradients.items())
        lengths = {site: self.length(gradient.float(), batch) for site, gradient in masked}
        total = sum(length.square() for length in lengths.values()) ** 0.5
        return {site: up * (lengths[site] / total.clamp(min=SMALLEST)) for site, up in ups.items()}

    def project(self, delta: Float[Tensor, "B L D"], embeds: Tensor, batch: Batch) -> Float[Tensor, "B L D"]:
        """Return the projection of a perturbation onto the ball."""
        return delta * self.shrinkage(delta, embeds, batch)

    def shrinkage(self, delta: Float[Tensor, "B L D"], embeds: Tensor, batch: Batch) -> Float[Tensor, "B L #D"]:
        """Return the factor that scales a perturbation onto the ball, 1 inside it."""
        radius = value_at(self.radius, batch.progress) * self.unit(embeds, batch)
        return (radius / self.length(delta, batch).clamp(min=SMALLEST)).clamp(max=1)

    def unit(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Tensor | float:
        """Return the length of one unit of radius, in the embedding's own unit."""
        if not self.relative:
            return 1.0
        norms = embeds.detach().float().square().sum(-1).sqrt()
        norms = norms / math.sqrt(embeds.shape[-1]) if self.norm == "coordinate" else norms
        return (batch.document_sum(norms) / batch.lengths)[..., None]
