"""Readers for the model arguments that carry document boundaries ("carriers"), one per kind of argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

# An additive mask hides a position by its dtype's minimum, or by -10000.
HIDDEN = -5000.0


@dataclass(frozen=True)
class Row:
    """The positions of the batch, against which a carrier is read row by row.

    Attributes:
        real: False on padding, as far as known.
        previous: index of the previous real position, -1 at the first one of a row.
    """

    real: Bool[Tensor, "B L"]
    previous: Int[Tensor, "B L"]

    @classmethod
    def of(cls, real: Bool[Tensor, "B L"]) -> Row:
        index = torch.arange(real.shape[1], device=real.device).where(real, -1)
        latest = index.cummax(-1).values if real.numel() else index
        return cls(real, torch.cat([torch.full_like(latest[:, :1], -1), latest[:, :-1]], -1))

    def before(self, values: Tensor) -> Tensor:
        """Return, at every position, the value at the previous real position."""
        return values.gather(-1, self.previous.clamp(min=0))

    def begins(self, numbers: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """Return the real positions whose document differs from the previous one's, except the first of a row."""
        return self.real & (self.previous >= 0) & (numbers != self.before(numbers))


# Reads an argument into the document number at every position, negative on padding.
Numbers: TypeAlias = "Callable[[Tensor, Row], Int[Tensor, 'B L']]"


def by_mask(mask: Tensor, row: Row) -> Int[Tensor, "B L"]:
    """Read a (B, L) mask, 0 on padding and otherwise 1 or a document number; or a mask over pairs of positions."""
    return mask.long() - 1 if mask.dim() == 2 else _by_visibility(mask, row)


def _by_visibility(mask: Tensor, row: Row) -> Int[Tensor, "B L"]:
    """Read (B, heads, L, L) or (B, L, L): a token that cannot attend to the previous one begins a document."""
    mask = (mask[:, 0] if mask.dim() == 4 else mask).expand(len(row.real), -1, -1)
    if mask.is_floating_point():
        visible = torch.where(mask.amax() > 0, mask > 0, mask > HIDDEN)
    else:
        visible = mask != 0
    # Every token attends to itself. A padding row that attends to nothing would break the softmax, so transformers
    # lets it attend to everything.
    sees_all = visible.all(-1) & ~visible[:, -1]
    row = Row.of(visible.diagonal(dim1=-2, dim2=-1) & ~sees_all & row.real)
    cut_off = ~visible.gather(-1, row.previous.clamp(min=0)[..., None])[..., 0]
    return (cut_off & row.real).long().cumsum(-1).where(row.real, -1)


def by_number(numbers: Tensor, row: Row) -> Int[Tensor, "B L"]:
    """Read document numbers (B, L), negative on padding."""
    return numbers.long().expand(row.real.shape)


def by_borders(borders: Tensor, row: Row) -> Int[Tensor, "B L"]:
    """Read cumulative sequence lengths, starting with 0, over all positions of the batch or only the real ones.

    Positions after the last length are padding.
    """
    ends = borders.flatten().to(row.real.device, torch.long).cummax(-1).values  # some collators pad them with zeros
    every = torch.arange(row.real.numel(), device=row.real.device).view_as(row.real)
    real = row.real.flatten().cumsum(0).view_as(row.real) - 1
    place = torch.where(ends.amax() == row.real.sum(), real, every)
    return torch.where(place < ends.amax(), torch.searchsorted(ends, place, right=True), -1)


def by_position(positions: Tensor, row: Row) -> Int[Tensor, "B L"]:
    """Read the position ids of tokens in their documents: (B, L), or several planes of it.

    A document begins where positions decrease; an upward jump, as in position-skipping (PoSE) training, does not begin
    one. Trailing zeros in a row are padding, since collators with `pad_to_multiple_of` mark it in no other way. A
    document of one token looks the same, but nothing is predicted from it, so this changes no loss.
    """
    of_three = positions.dim() == 3 and len(positions) == 3  # time, height, width; of four, the first counts text
    plane = positions.amax(0) if of_three else positions[0] if positions.dim() == 3 else positions
    plane = plane.long().expand(row.real.shape)
    before = row.before(plane)
    if of_three:  # they go up and down inside an image, but all are 0 only at a start
        begins = plane == 0
    else:
        least = plane.where(row.real, torch.iinfo(torch.long).max).amin(-1, keepdim=True) if plane.numel() else plane
        begins = (plane < before) | ((plane == before) & (plane == least))
    tail = ((plane == 0) | ~row.real).long().flip(-1).cumprod(-1).flip(-1).bool() & (row.previous >= 0)
    return (begins & row.real).long().cumsum(-1).where(~tail, -1)


CARRIERS: dict[str, Numbers] = {
    "attention_mask": by_mask,  # 0 and 1; in Axolotl and LLaMA-Factory's neat_packing, numbers or (B, 1, L, L)
    "seq_idx": by_number,  # Mamba, transformers' DataCollatorWithFlattening
    "sequence_id": by_number,  # MosaicML
    "cu_seq_lens_q": by_borders,  # transformers, TRL
    "cu_seq_lens_k": by_borders,
    "cu_seqlens": by_borders,  # flash-attn, ms-swift
    "cu_seqlens_q": by_borders,
    "cu_seqlens_k": by_borders,
    "position_ids": by_position,  # all frameworks
    "text_position_ids": by_position,  # ms-swift, next to three planes of position_ids
}
