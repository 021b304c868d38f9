"""Sums, positions and random keys per document of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neft_zoo.noise.randomness import GOLDEN, mix

if TYPE_CHECKING:
    from jaxtyping import Bool, Int


def sum_by_document(values: Tensor, document: Int[Tensor, "B L"]) -> Tensor:
    """Return, at every position, the sum of `values` (B, L) over the position's document."""
    totals = values.new_zeros(values.numel()).index_add_(0, document.flatten(), values.flatten())
    return totals[document]


def places_in_documents(
    real: Bool[Tensor, "B L"], document: Int[Tensor, "B L"], first: Bool[Tensor, "B L"]
) -> Int[Tensor, "B L"]:
    """Return, at every position, the number of real positions before it in its document.

    Args:
        real: which positions count.
        document: index of the document that each position belongs to.
        first: True where a document begins.
    """
    before = real.flatten().cumsum(0).view_as(document) - real.long()
    return before - sum_by_document(before * first, document)


def token_keys(
    input_ids: Int[Tensor, "B L"],
    real: Bool[Tensor, "B L"],
    document: Int[Tensor, "B L"],
    position: Int[Tensor, "B L"],
    key: int,
) -> Int[Tensor, "B L"]:
    """Hash (key, the document's tokens, number of equal documents before it, position) into one key per position."""
    token = mix(mix(input_ids.long() * GOLDEN) + position * GOLDEN)
    fingerprint = sum_by_document(torch.where(real, token, 0), document)
    firsts = (real & (position == 0)).flatten()
    prints = fingerprint.flatten()[firsts]
    twins = (prints[:, None] == prints[None, :]).tril(-1).sum(1)
    twin = torch.zeros_like(fingerprint).view(-1).index_add_(0, firsts.nonzero()[:, 0], twins).view_as(fingerprint)
    seeds = mix(mix(fingerprint ^ key) + sum_by_document(twin, document) * GOLDEN)
    return mix(seeds + position * GOLDEN)
