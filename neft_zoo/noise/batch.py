"""Batch: the tokens of one forward pass and all that a noise may need of them, for any batch layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neft_zoo.errors import NoiseError
from neft_zoo.noise.documents import places_in_documents, sum_by_document, token_keys
from neft_zoo.noise.layout import IGNORED, read_documents
from neft_zoo.noise.randomness import GOLDEN, key_of, mix, stream

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

EMBEDDING = -1
PLACEHOLDERS = -2


@dataclass(frozen=True, eq=False)
class Batch:
    """The tokens of one forward pass, in any layout.

    Attributes:
        input_ids: token ids.
        real: False on padding and on placeholders for images, video or sound.
        document: index of the document that a position belongs to, counted over the whole batch. On padding, the
            values of `document`, `position` and `lengths` are undefined.
        position: index of the token among the real tokens of its document, from 0.
        lengths: number of real tokens in the position's document (for a document with images, of its text).
        graded: True where the loss uses the token as a target; None without a label per token.
        labels: the targets of the loss as given, -100 where ignored; None without a label per token.
        key: random key of the optimizer step, the same for all its micro-batches.
        keys: one random 64-bit key per position, from which all noise is derived (see `neft_zoo.noise.randomness`).
        progress: fraction of training done, in [0, 1].
        special: True on the tokenizer's special tokens; all False without a tokenizer.
        placeholder: True where the model inserts image, video or sound features; None if it has no placeholders.
        fill_id: id that replaces a hidden token: the tokenizer's mask token, or else its padding token.
        site: where the noise is added: `EMBEDDING`, the number of the decoder layer at whose input it is added, or
            `PLACEHOLDERS`, where `real`, `position` and `lengths` describe a document's placeholders.
        factor: the constant that the embedding module multiplies its table by: sqrt(D) in Gemma, 1 in most models.
    """

    input_ids: Int[Tensor, "B L"]
    real: Bool[Tensor, "B L"]
    document: Int[Tensor, "B L"]
    position: Int[Tensor, "B L"]
    lengths: Int[Tensor, "B L"]
    graded: Bool[Tensor, "B L"] | None
    labels: Int[Tensor, "B L"] | None
    key: int
    keys: Int[Tensor, "B L"]
    progress: float
    special: Bool[Tensor, "B L"]
    placeholder: Bool[Tensor, "B L"] | None = None
    fill_id: int | None = None
    site: int = EMBEDDING
    factor: float | Tensor = 1.0

    @classmethod
    def from_inputs(
        cls,
        inputs: Mapping[str, Tensor | None],
        *,
        key: int = 0,
        progress: float = 0.0,
        special_ids: Sequence[int] = (),
        fill_id: int | None = None,
        pad_id: int | None = None,
        media_ids: Sequence[int] = (),
        shifted: bool = True,
    ) -> Batch:
        """Build the batch from a model's keyword arguments: padded, packed or padding-free (see `layout`).

        Args:
            inputs: the model's keyword arguments; `input_ids` (B, L) is required, the others are used if present.
            key: a hash of run seed, data-parallel rank and optimizer step; equal keys draw equal noise.
            progress: fraction of training done, in [0, 1].
            special_ids: ids of the tokenizer's special tokens.
            fill_id: id that replaces a hidden token.
            pad_id: id of the tokenizer's padding token.
            media_ids: ids of the placeholder tokens for images, video or sound.
            shifted: whether labels are shifted by one position, as in causal models.

        Raises:
            NoiseError: without `input_ids`, or if the document boundaries cannot be read.
        """
        input_ids = inputs.get("input_ids")
        if input_ids is None:
            raise NoiseError(f"a batch needs input_ids to be given noise, got {sorted(inputs)}.")
        if input_ids.dim() != 2 or input_ids.is_meta:
            what = "on the meta device" if input_ids.is_meta else tuple(input_ids.shape)
            raise NoiseError(f"input_ids must be token ids of shape (B, L), got {what}.")
        real, first = read_documents(inputs, input_ids, pad_id)
        labels = inputs.get("labels")
        if labels is not None and labels.shape != input_ids.shape:
            labels = None  # one class per sequence
        graded = None if labels is None else (labels != IGNORED) & real
        if graded is not None and shifted:
            # Nothing predicts a document's first token; some layouts mask its label and others do not.
            graded = graded & ~first
        document = (first.flatten().cumsum(0) - 1).clamp_(min=0).view_as(input_ids)
        placeholder = None
        if media_ids:
            stands_in = torch.isin(input_ids, torch.tensor(list(media_ids), device=input_ids.device))
            placeholder, real = real & stands_in, real & ~stands_in
        lengths = sum_by_document(real.long(), document)
        position = places_in_documents(real, document, first)
        keys = token_keys(input_ids, real, document, position, key)
        special = torch.isin(input_ids, torch.tensor(list(special_ids), dtype=torch.long, device=input_ids.device))
        return cls(
            input_ids=input_ids,
            real=real,
            document=document,
            position=position,
            lengths=lengths.clamp(min=1),
            graded=graded,
            labels=labels,
            key=key,
            keys=keys,
            progress=progress,
            special=special,
            placeholder=placeholder,
            fill_id=fill_id,
        )

    def at(self, site: int) -> Batch:
        """Return the batch as seen at another site; draws at different sites are independent."""
        if site == self.site:
            return self
        if site == PLACEHOLDERS:
            return self._at_placeholders()
        return replace(self, site=site, keys=stream(self.keys, f"layer {site}"))

    def _at_placeholders(self) -> Batch:
        """Return the batch with the placeholders as its real tokens, each with its own key."""
        real = torch.zeros_like(self.real) if self.placeholder is None else self.placeholder
        starts = self.document != self.document.flatten().roll(1).view_as(self.document)
        starts.view(-1)[:1] = True
        position = places_in_documents(real, self.document, starts)
        keys = mix(self.document_stream("placeholders") + position * GOLDEN)
        lengths = sum_by_document(real.long(), self.document).clamp(min=1)
        return replace(self, site=PLACEHOLDERS, real=real, position=position, lengths=lengths, keys=keys)

    def part(self, positions: slice) -> Batch:
        """Return a slice of the flattened positions as a batch of one row (1, N).

        Lengths and positions still refer to the full documents, but sums over documents cover only the slice.
        """
        attributes = ((field.name, getattr(self, field.name)) for field in fields(self))
        shape = self.input_ids.shape
        aligned = {name: value for name, value in attributes if isinstance(value, Tensor) and value.shape == shape}
        return replace(self, **{name: value.flatten()[positions][None] for name, value in aligned.items()})

    def document_sum(self, values: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        """Return, at every position, the sum of `values` over the real tokens in its document."""
        return sum_by_document(torch.where(self.real, values, 0), self.document)

    def document_max(self, values: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        """Return, at every position, the maximum of `values` (>= 0) over the real tokens in its document."""
        values, document = torch.where(self.real, values, 0), self.document.flatten()
        return values.new_zeros(values.numel()).scatter_reduce_(0, document, values.flatten(), "amax")[self.document]

    def stream(self, name: str) -> Int[Tensor, "B L"]:
        """Return keys for a draw that is independent of the draws from other streams."""
        return stream(self.keys, name)

    def document_stream(self, name: str) -> Int[Tensor, "B L"]:
        """Return keys that are shared by all positions of a document."""
        firsts = self.real & (self.position == 0)
        return stream(sum_by_document(torch.where(firsts, self.keys, 0), self.document), name)

    def places(self, position: Int[Tensor, "B L"], document: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """Return the flat index of the given position in the given document, elementwise."""
        real = self.real.flatten()
        firsts = (self.real & (self.position == 0)).flatten()
        starts = self.document.new_zeros(real.numel())
        starts[self.document.flatten()[firsts]] = (real.cumsum(0) - 1)[firsts]
        places = torch.cat([real.nonzero()[:, 0], starts.new_zeros(1)])  # a batch may be all padding
        return places[starts[document] + position]

    def gather(self, values: Tensor, position: Int[Tensor, "B L"], document: Int[Tensor, "B L"]) -> Tensor:
        """Return `values` (B, L, ...) at the given position of the given document, elementwise."""
        return values.flatten(0, 1)[self.places(position, document)]


def step_key(seed: int, rank: int, step: int) -> int:
    """Return the random key of an optimizer step, shared by its micro-batches so that accumulation changes no draw."""
    return key_of("step", seed, rank, step)
