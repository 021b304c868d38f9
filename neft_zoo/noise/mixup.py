"""Mixup: interpolating the embeddings of two documents of equal length."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import NoiseTraits
from neft_zoo.noise.randomness import key_of
from neft_zoo.noise.schedules import check_number

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from neft_zoo.noise.batch import Batch


@dataclass(frozen=True)
class Mixture:
    """The delta of mixup on a slice of the positions, and its backward pass.

    Attributes:
        embeds: the embeddings of all positions (N, D).
        partner: flat index of the position that is mixed into this one (N,).
        mixed: flat index of the position that this one is mixed into (N,).
        size: the partner's weight (N, 1).
    """

    embeds: Float[Tensor, "N D"]
    partner: Int[Tensor, " N"]
    mixed: Int[Tensor, " N"]
    size: Float[Tensor, "N 1"]

    def __call__(self, rows: Float[Tensor, "n D"], part: slice) -> Float[Tensor, "n D"]:
        return (self.embeds[self.partner[part]].float() - rows.float()).mul_(self.size[part])

    def back(self, grads: Float[Tensor, "N D"], part: slice) -> Float[Tensor, "n D"]:
        """Return the gradient for a slice of the embeddings, given the gradients of all of delta."""
        return (grads[self.mixed[part]].float() - grads[part].float()).mul_(self.size[part])


@dataclass(frozen=True)
class EmbedMix(NoiseTraits):
    """l * e_i + (1 - l) * e_j with l ~ Beta(a, a), l = max(l, 1 - l), one l per optimizer step.

    The documents of equal length in a batch form a ring, in which the partner j of document i is the next one. A
    document without a partner keeps its embeddings.
    """

    a: float

    mixes_documents: ClassVar[bool] = True  # by design
    passes_gradients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("a", self.a, 1e-6)

    def share(self, batch: Batch) -> float:
        """Return l, the weight of the document itself."""
        drawn = random.Random(key_of("mix", batch.key)).betavariate(self.a, self.a)
        return max(drawn, 1 - drawn)

    def mixes(self, batch: Batch) -> bool:
        """Return whether any document in the batch has a partner."""
        return bool((_following(batch) != batch.document)[batch.real].any())

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        partner = batch.gather(embeds, batch.position * batch.real, _following(batch)).float()
        return (partner - embeds.float()) * ((1 - self.share(batch)) * batch.real[..., None])

    def in_parts(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Mixture:
        """Return the mixture as a function that draws a slice of the positions."""
        position = batch.position * batch.real
        partner, mixed = (batch.places(position, _following(batch, by)).flatten() for by in (1, -1))
        size = (1 - self.share(batch)) * batch.real.float().view(-1, 1)
        return Mixture(embeds.detach().flatten(0, 1), partner, mixed, size)

    def partners_labels(self, batch: Batch, first_tokens: bool = False) -> Int[Tensor, "B L"]:
        """Return the partner's label at every position, -100 on padding.

        Args:
            batch: must have labels.
            first_tokens: whether to keep the labels of first tokens, which no token predicts, instead of -100.
        """
        if batch.labels is None or batch.graded is None:
            raise NoiseError("embed_mix needs labels in the batch, got a batch without labels.")
        labels = batch.gather(batch.labels, batch.position * batch.real, _following(batch))
        return labels.where(batch.real & (first_tokens | (batch.position > 0)), -100)


def _following(batch: Batch, by: int = 1) -> Int[Tensor, "B L"]:
    """Return, at every position, the number of the document that is `by` places further in the ring."""
    firsts = batch.real & (batch.position == 0)
    lengths, numbers = batch.lengths[firsts].tolist(), batch.document[firsts].tolist()
    rings: dict[int, list[int]] = {}
    for length, number in zip(lengths, numbers, strict=True):
        rings.setdefault(length, []).append(number)
    partner = batch.document.new_zeros(batch.document.numel())
    for ring in rings.values():
        for place, number in enumerate(ring):
            partner[number] = ring[(place + by) % len(ring)]
    return partner[batch.document]
