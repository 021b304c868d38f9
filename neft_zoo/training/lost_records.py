"""Warnings for records without graded tokens within `max_length`, which TRL drops or keeps silently."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Any

import numpy as np

from neft_zoo.errors import DataWarning, NoiseError
from neft_zoo.noise.batch import IGNORED

if TYPE_CHECKING:
    from transformers import Trainer


def check_kept(given: Any, kept: Any, args: Any, name: str = "", packed: bool = False) -> None:
    """Warn about records that have lost every graded token to `max_length`.

    Args:
        given: the records given to a trainer, or a mapping of splits.
        kept: what the trainer made of them.
        args: the trainer's arguments.
        name: of the split, for messages; empty for the training records.
        packed: whether several records are packed into a row.

    Raises:
        NoiseError: if no record has a graded token left.
    """
    if isinstance(given, Mapping):
        for key in given:
            check_kept(given[key], kept[key], args, f" of split {key!r}", packed)
        return
    if not (isinstance(given, Sized) and isinstance(kept, Sized)) or not len(given):
        return
    before, length = max(len(given), len(kept)), getattr(args, "max_length", None)  # KTO makes two records of a pair
    ungraded = _ungraded(kept, args)
    lost = ungraded if packed else before - len(kept) + ungraded
    if lost >= before:
        raise NoiseError(
            f"max_length must leave a graded token in a record, got {length}: all {before}{name} lose theirs."
        )
    if lost > 0:
        what = "they train nothing" if ungraded else "they are dropped"
        warnings.warn(
            f"{lost} of {before} records{name} have no graded token within max_length {length}: {what}.",
            DataWarning,
            stacklevel=3,
        )


def check_trainer(given: Mapping[str, Any], trainer: Trainer) -> None:
    """Check the training and evaluation records of a trainer that has prepared them.

    Args:
        given: the data given to it, by argument name.
        trainer: the trainer.

    Raises:
        NoiseError: if `max_length` leaves no graded token in a split.
    """
    args: Any = trainer.args
    packing = bool(getattr(args, "packing", False))
    also = getattr(args, "eval_packing", None)
    for split, packed in (("train_dataset", packing), ("eval_dataset", packing if also is None else also)):
        if given.get(split) is not None and (kept := getattr(trainer, split, None)) is not None:
            check_kept(given[split], kept, args, "" if split == "train_dataset" else " of eval_dataset", packed)


def _ungraded(kept: Any, args: Any) -> int:
    """Return how many records in packed rows have no graded token."""
    columns = set(getattr(kept, "column_names", None) or ())
    if {"seq_lengths", "labels"} <= columns and getattr(args, "packing_strategy", "") == "bfd":
        rows = kept.select_columns(["seq_lengths", "labels"]).with_format("numpy")
        return sum(_ungraded_documents(row["labels"], row["seq_lengths"]) for row in rows)
    return 0


def _ungraded_documents(labels: np.ndarray, lengths: np.ndarray) -> int:
    graded, borders = np.asarray(labels) != IGNORED, np.cumsum(lengths)[:-1]
    return sum(not document.any() for document in np.split(graded, borders))
