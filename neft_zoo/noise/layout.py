"""Reading from a batch which positions hold tokens, and which document each one belongs to.

Collators have no common argument for this: `CARRIERS` has an entry for every kind of argument that carries document
boundaries. Without such an argument, a row is one document whatever its mask; masked positions belong to none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neft_zoo.errors import NoiseError
from neft_zoo.noise.carriers import CARRIERS, Row, by_borders, by_mask, by_position

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

IGNORED = -100
# Names that can only carry document boundaries.
UNKNOWN = re.compile(r"tree_\w+|cu_?seq\w*|(seq|sequence|segment|doc|document)_?(ids?|idx|lens?|lengths?)|packed_\w+")


def read_documents(
    inputs: Mapping[str, object], ids: Int[Tensor, "B L"], pad_id: int | None = None
) -> tuple[Bool[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """Return which positions are real and which of those begin a document.

    Args:
        inputs: the model's keyword arguments.
        ids: the token ids among them.
        pad_id: the tokenizer's padding token, used to find padding that no carrier marks.

    Raises:
        NoiseError: if a carrier cannot be read, or if two of them disagree.
    """
    carriers = _carriers(inputs, ids)
    row = Row.of(torch.ones_like(ids, dtype=torch.bool))
    numbers: dict[str, Tensor] = {}
    for name, value in carriers.items():
        numbers[name] = CARRIERS[name](value, row)
        row = Row.of(row.real & (numbers[name] >= 0))
    labels = inputs.get("labels")
    unused = torch.zeros_like(row.real)
    if pad_id is not None and isinstance(labels, Tensor) and labels.shape == ids.shape:
        unused = (ids == pad_id) & (labels == IGNORED)
    # A single token may be a document's own ungraded EOS, and a batch that marks any padding has marked all of it.
    unmarked = _at_ends(unused, least=2 if carriers else 1) & row.real.all()
    row = Row.of(row.real & ~unmarked)
    begins = row.real & (row.previous < 0)
    for number in numbers.values():
        begins = begins | row.begins(number)
    _check_agreement(carriers, {name: row.begins(number) for name, number in numbers.items()})
    document = (begins.flatten().cumsum(0) - 1).clamp(min=0)
    used = torch.zeros_like(document).index_add_(0, document, (row.real & ~unused).flatten().long())
    real = row.real & (used[document] > 0).view_as(row.real)  # a document that is all padding does not count
    return real, begins & real


def _at_ends(unused: Bool[Tensor, "B L"], least: int) -> Bool[Tensor, "B L"]:
    """Return the runs of at least `least` unused positions at the start or end of a row."""
    left, right = unused.long().cumprod(-1), unused.long().flip(-1).cumprod(-1).flip(-1)
    long_enough = [stretch * (stretch.sum(-1, keepdim=True) >= least) for stretch in (left, right)]
    return (long_enough[0] + long_enough[1]) > 0


def _check_agreement(carriers: Mapping[str, Tensor], begins: Mapping[str, Bool[Tensor, "B L"]]) -> None:
    """Raise unless all carriers begin documents at the same positions."""
    first, *others = sorted(begins, key=lambda name: name == "attention_mask") or [""]
    apart = {name: begins[first] ^ begins[name] for name in others}
    if others and others[-1] == "attention_mask" and carriers["attention_mask"].dim() == 2:
        # A mask of zeros and ones carries no boundaries; this waits for no GPU, the only synchronization is below.
        apart["attention_mask"] = apart["attention_mask"] & (carriers["attention_mask"].amax() > 1)
    if not others or not torch.stack([*apart.values()]).any():
        return
    name = next(name for name in others if apart[name].any())
    row, token = apart[name].nonzero()[0].tolist()
    raise NoiseError(
        f"{name} and {first} must begin documents at the same tokens, got a difference at token {token} of row {row}."
    )


def _carriers(inputs: Mapping[str, object], ids: Tensor) -> dict[str, Tensor]:
    """Return the values of a batch's carriers, in reading order.

    Raises:
        NoiseError: if a carrier's shape cannot be read, or if an argument about documents is not a known carrier.
    """
    for name, value in inputs.items():
        if value is not None and name not in CARRIERS and UNKNOWN.fullmatch(name):
            raise NoiseError(
                f"document boundaries must be given by {', '.join(CARRIERS)}, got {name}, which noise cannot read."
            )
    return {name: _read(name, inputs[name], ids) for name in CARRIERS if inputs.get(name) is not None}


def _read(name: str, value: object, ids: Tensor) -> Tensor:
    """Return a carrier's value as a tensor of a shape that its reader accepts."""
    if name == "attention_mask" and isinstance(value, Mapping):  # transformers: one mask per attention type
        value = value.get("full_attention", next(iter(value.values()), None))
    if not isinstance(value, Tensor):
        raise NoiseError(f"{name} must be a tensor, got {type(value).__name__}.")
    shape, rows, length = tuple(value.shape), *ids.shape
    reader = CARRIERS[name]
    of_pairs = len(shape) in (3, 4) and shape[0] in (1, rows) and shape[-2:] == (length, length)
    of_tokens = shape[-2:] in ((rows, length), (1, length))
    planes = reader is by_position and shape[:-2] in ((3,), (4,))
    one_row = reader is by_position and shape == (length,)
    if reader is by_borders or (reader is by_mask and of_pairs) or one_row:
        return value[None] if one_row else value
    if not of_tokens or not (len(shape) == 2 or planes):
        raise NoiseError(f"{name} must have one number per token, {(rows, length)}, got {shape}.")
    return value
