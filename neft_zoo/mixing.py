"""Mixing the embeddings of two documents of equal length."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from neft_zoo.errors import NoiseError
from neft_zoo.randomness import key_of
from neft_zoo.schedules import check_number

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from neft_zoo.batch import Batch


@dataclass(frozen=True)
class EmbedMix:
    """l * e_i + (1 - l) * e_j with l ~ Beta(a, a), l = max(l, 1 - l), one l per optimizer step.

    Document i's partner j is the next one of the same length in the batch, in a ring; a document without one keeps
    its own embeddings.
    """

    a: float

    mixes_documents: ClassVar[bool] = True  # so it depends on the neighbours, by design

    def __post_init__(self) -> None:
        check_number("a", self.a, 1e-6)

    def share(self, batch: Batch) -> float:
        """Return l, the document's own share."""
        drawn = random.Random(key_of("mix", batch.key)).betavariate(self.a, self.a)
        return max(drawn, 1 - drawn)

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        partner = batch.gather(embeds, batch.position * batch.real, self._partner(batch)).float()
        return (partner - embeds.float()) * ((1 - self.share(batch)) * batch.real[..., None])

    def partners_labels(self, batch: Batch) -> Int[Tensor, "B L"]:
        """Return the labels of the partner, position by position; -100 on padding and on first tokens."""
        if batch.labels is None or batch.graded is None:
            raise NoiseError("embed_mix needs labels in the batch, got a batch without labels.")
        labels = batch.gather(batch.labels, batch.position * batch.real, self._partner(batch))
        return labels.where(batch.real & (batch.position > 0), -100)

    def _partner(self, batch: Batch) -> Int[Tensor, "B L"]:
        """Return the number of the partner document at every position."""
        firsts = batch.real & (batch.position == 0)
        lengths, numbers = batch.lengths[firsts].tolist(), batch.document[firsts].tolist()
        rings: dict[int, list[int]] = {}
        for length, number in zip(lengths, numbers, strict=True):
            rings.setdefault(length, []).append(number)
        partner = batch.document.new_zeros(batch.document.numel())
        for ring in rings.values():
            for number, following in zip(ring, ring[1:] + ring[:1], strict=True):
                partner[number] = following
        return partner[batch.document]
