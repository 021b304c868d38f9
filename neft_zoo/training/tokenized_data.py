"""Checks of tokenized records, which TRL passes on unchecked so that the collator fails in the first step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from neft_zoo.errors import NoiseError, shown

TOKENIZED = ("input_ids", "prompt_ids", "prompt_input_ids", "chosen_ids", "chosen_input_ids")
ANSWERS = ("completion_ids", "completion_input_ids", "rejected_ids", "rejected_input_ids")
BY_TOKEN = ("labels", "completion_mask", "assistant_masks", "attention_mask")  # as long as `input_ids`
BATCH = 1000


def check_tokens(data: Any, source: str) -> None:
    """Raise unless all token columns hold lists of whole numbers; of a stream, only the first records are read.

    Args:
        data: a dataset with one of the columns in `TOKENIZED`.
        source: its name in messages.

    Raises:
        NoiseError: with source, number of the record (from 1), column and value.
    """
    start = 1
    for table in _tables(data):
        columns = [name for name in (*TOKENIZED, *ANSWERS, *BY_TOKEN) if name in table.column_names]
        for name in columns:
            column = table.column(name).combine_chunks()
            if not _fits(column):
                at = next(i for i, value in enumerate(column.to_pylist()) if not _is_tokens(value))
                value = column[at].as_py()
                raise NoiseError(
                    f"{source}, record {start + at}: {name} must be a list of whole numbers, got {shown(value)}."
                )
        for name in set(BY_TOKEN) & set(columns) if "input_ids" in columns else ():
            lengths, ids = (_lengths(table.column(each)) for each in (name, "input_ids"))
            if lengths != ids:
                at = next(i for i in range(len(ids)) if lengths[i] != ids[i])
                raise NoiseError(
                    f"{source}, record {start + at}: {name} must be as long as input_ids, got {lengths[at]} for "
                    f"{ids[at]} tokens."
                )
        start += len(table)


def _tables(data: Any) -> Iterator[pa.Table]:
    tables = data.with_format("arrow").iter(BATCH)
    return islice(tables, None if hasattr(data, "select") else 1)


def _fits(column: Any) -> bool:
    """Return whether all values are lists of whole numbers; a column of only null lists has no element type."""
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not lists or column.null_count:
        return False
    values = column.flatten()
    whole = pa.types.is_integer(kind.value_type) or pa.types.is_boolean(kind.value_type)
    return not len(values) or (whole and not values.null_count)


def _lengths(column: Any) -> list[int]:
    return column.combine_chunks().value_lengths().to_pylist()


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, int) for each in value)
