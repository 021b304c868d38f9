"""How the arguments of a model say which document every position belongs to, one reader for every kind of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

# An additive mask hides a position by the least number of its dtype, or by -10000.
HIDDEN = -5000.0


@dataclass(frozen=True)
class Row:
    """The positions that a carrier is read against, row by row.

    Attributes:
        real: False on padding, as far as it is known.
        previous: index of the real position before, -1 at a row's first one.
    """

    real: Bool[Tensor, "B L"]
    previous: Int[Tensor, "B L"]

    @classmethod
    def of(cls, real: Bool[Tensor, "B L"]) -> Row:
        index = torch.arange(real.shape[1], device=real.device).where(real, -1)
        latest = index.cummax(-1).values if real.numel() else index
        return cls(real, torch.cat([torch.full_like(latest[:, :1], -1), latest[:, :-1]], -1))

    def before(self, values: Tensor) -> Tensor:
        """Return, at every position, the value at the real position before."""
        return values.gather(-1, self.previous.clamp(min=0))

    def begins(self, numbers: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """Return the real positions, but for a row's first, whose document is not that of the position before."""
        return self.real & (self.previous >= 0) & (numbers != self.before(numbers))


# Reads the number of the document at every position, negative on padding, from the value of an argument.
Numbers: TypeAlias = "Callable[[Tensor, Row], Int[Tensor, 'B L']]"


def by_mask(mask: Tensor, row: Row) -> Int[Tensor, "B L"]:
    """Read (B, L), 0 on padding, where 1 may be a document's number; or which positions see each other."""
    return mask.long() - 1 if mask.dim() == 2 else _by_visibility(mask, row)


def _by_visibility(mask: Tensor, row: Row) -> Int[Tensor, "B L"]:
    """Read (B, heads, L, L) or (B, L, L): a token that does not see the one before begins a document."""
    mask = (mask[:, 0] if mask.dim() == 4 else mask).expand(len(row.real), -1, -1)
    if mask.is_floating_point():
        visible = torch.where(mask.amax() > 0, mask > 0, mask > HIDDEN)
    else:
        visible = mask != 0
    # Every token sees itself. Padding that saw nothing would break a softmax, so transformers lets it see everything.
    sees_all = visible.all(-1) & ~visible[:, -1]
    row = Row.of(visible.diagonal(dim1=-2, dim2=-1) & ~sees_all & row.real)
    cut_off = ~visible.gather(-1, row.previous.clamp(min=0)[..., None])[..., 0]
    return (cut_off & row.real).long().cumsum(-1).where(row.real, -1)


def by_number(numbers: Tensor, row: Row) -> Int[Tensor, "B L"]:
    """Read numbers of documents (B, L), negative on padding."""
    return numbers.long().expand(row.real.shape)


def by_borders(borders: Tensor, row: Row) -> Int[Tensor, "B L"]:
    """Read 0 and every document's end, counted through all positions of the batch, or through the real ones alone.

    Positions after the last end are padding.
    """
    ends = borders.flatten().to(row.real.device, torch.long).cummax(-1).values  # some are padded with zeros
    every = torch.arange(row.real.numel(), device=row.real.device).view_as(row.real)
    real = row.real.flatten().cumsum(0).view_as(row.real) - 1
    place = torch.where(ends.amax() == row.real.sum(), real, every)
    return torch.where(place < ends.amax(), torch.searchsorted(ends, place, right=True), -1)


def by_position(positions: Tensor, row: Row) -> Int[Tensor, "B L"]:
    """Read the place of tokens in their documents: (B, L) or planes of it.

    A document begins where positions go back; a jump upwards, as in position-skipping (PoSE) training, is inside one.
    A row that ends with zeros is padded there: collators with `pad_to_multiple_of` mark it in no other way. A document
    of one token looks the same, and does not matter, as nothing is predicted from it.
    """
    of_three = positions.dim() == 3 and len(positions) == 3  # time, height and width; of four the first counts text
    plane = positions.amax(0) if of_three else positions[0] if positions.dim() == 3 else positions
    plane = plane.long().expand(row.real.shape)
    before = row.before(plane)
    if of_three:  # inside an image they go to and fro, but only at a start all are 0
        begins = plane == 0
    else:
        least = plane.where(row.real, torch.iinfo(torch.long).max).amin(-1, keepdim=True) if plane.numel() else plane
        begins = (plane < before) | ((plane == before) & (plane == least))
    tail = ((plane == 0) | ~row.real).long().flip(-1).cumprod(-1).flip(-1).bool() & (row.previous >= 0)
    return (begins & row.real).long().cumsum(-1).where(~tail, -1)


CARRIERS: dict[str, Numbers] = {
    "attention_mask": by_mask,  # 0 and 1; Axolotl, LLaMA-Factory's neat_packing: numbers, or (B, 1, L, L)
    "seq_idx": by_number,  # Mamba, transformers' DataCollatorWithFlattening
    "sequence_id": by_number,  # MosaicML
    "cu_seq_lens_q": by_borders,  # transformers, TRL
    "cu_seq_lens_k": by_borders,
    "cu_seqlens": by_borders,  # flash-attn, ms-swift
    "cu_seqlens_q": by_borders,
    "cu_seqlens_k": by_borders,
    "position_ids": by_position,  # all of them
    "text_position_ids": by_position,  # ms-swift, beside three planes of position_ids
}
