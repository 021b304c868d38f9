"""Noise that removes information: coordinates or whole embeddings set to 0, or token ids replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from neft_zoo.errors import NoiseError
from neft_zoo.noise import randomness
from neft_zoo.noise.additive import NoiseTraits
from neft_zoo.noise.schedules import Scalar, check_scalar, value_at

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from neft_zoo.noise.batch import Batch

ALMOST_ONE = 0.999999


@dataclass(frozen=True)
class ElementDropout(NoiseTraits):
    """Sets coordinates to 0 with probability p and scales the others by 1 / (1 - p)."""

    p: Scalar

    pointwise: ClassVar[bool] = True
    passes_gradients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_scalar("p", self.p, 0, ALMOST_ONE)

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        p = value_at(self.p, batch.progress)
        kept = randomness.uniform(batch.stream("cut"), embeds.shape[-1]).ge_(2 * p - 1)
        return embeds.float() * kept.mul_(1 / (1 - p)).sub_(1).mul_(batch.real[..., None])


@dataclass(frozen=True)
class TokenCut(NoiseTraits):
    """Sets whole token embeddings to 0 with probability p, except first tokens of documents and special tokens."""

    p: Scalar

    pointwise: ClassVar[bool] = True
    passes_gradients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_scalar("p", self.p, 0, ALMOST_ONE)

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        chosen = randomness.unit(batch.stream("cut")) < value_at(self.p, batch.progress)
        return cut(embeds, chosen & batch.real & ~batch.special & (batch.position > 0))


@dataclass(frozen=True)
class SpanCut:
    """Sets one contiguous span of every document to 0: a share `ratio` of its tokens, rounded, at a random place."""

    ratio: Scalar

    def __post_init__(self) -> None:
        check_scalar("ratio", self.ratio, 0, ALMOST_ONE)

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        length = (batch.lengths * value_at(self.ratio, batch.progress)).round()
        begin = (randomness.unit(batch.document_stream("cut")) * (batch.lengths - length + 1)).floor()
        inside = (batch.position >= begin) & (batch.position < begin + length)
        return cut(embeds, inside & batch.real)


@dataclass(frozen=True)
class FeatureCut:
    """Sets features to 0 with probability `ratio`, the same features for all tokens of a document."""

    ratio: Scalar

    def __post_init__(self) -> None:
        check_scalar("ratio", self.ratio, 0, ALMOST_ONE)

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        drawn = (randomness.uniform(batch.document_stream("cut"), embeds.shape[-1]) + 1) / 2
        return -embeds.float() * ((drawn < value_at(self.ratio, batch.progress)) & batch.real[..., None])


def cut(embeds: Float[Tensor, "B L D"], chosen: Bool[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
    """Return the delta that sets the chosen embeddings to 0."""
    return -embeds.float() * chosen[..., None]


@dataclass(frozen=True)
class HideTokens:
    """Replaces graded input tokens, except special ones, with probability p; the labels are unchanged.

    `by="mask"` inserts the tokenizer's mask token, or its padding token if it has none; `by="random"` inserts a token
    from another place in the same document.
    """

    p: Scalar
    by: Literal["mask", "random"] = "mask"

    def __post_init__(self) -> None:
        check_scalar("p", self.p, 0, 1)
        if self.by not in ("mask", "random"):
            raise NoiseError(f"by must be 'mask' or 'random', got {self.by!r}.")

    def check(self, fill_id: int | None, rows: int) -> None:
        """Raise unless the token that is inserted, if it is known, has one of the embedding's rows."""
        if self.by == "mask" and fill_id is not None and fill_id >= rows:
            raise NoiseError(
                f"by='mask' needs a mask token below the embedding's {rows} rows, got {fill_id}: resize the "
                "embedding, or use by='random'."
            )

    def edit(self, batch: Batch) -> Int[Tensor, "B L"]:
        if batch.graded is None:
            raise NoiseError("hiding graded tokens needs labels in the batch, got a batch without labels.")
        chosen = randomness.unit(batch.stream("cut")) < value_at(self.p, batch.progress)
        chosen = chosen & batch.graded & batch.real & ~batch.special
        return batch.input_ids.where(~chosen, self._instead(batch))

    def _instead(self, batch: Batch) -> Int[Tensor, "B L"]:
        if self.by == "random":
            place = (randomness.unit(batch.stream("instead")) * (batch.lengths - 1)).long()
            place = place + (place >= batch.position)  # any place except the token's own
            return batch.gather(batch.input_ids, place.clamp(max=batch.lengths - 1) * batch.real, batch.document)
        if batch.fill_id is None:
            raise NoiseError("by='mask' needs a tokenizer with a mask or a padding token, got none; use by='random'.")
        import torch  # late: `neft-zoo list` works without it

        return torch.full_like(batch.input_ids, batch.fill_id)
