"""Shipped records for measuring side effects, independent of a model's training data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal, TypeVar

from neft_zoo.config import recipe
from neft_zoo.evaluation.records import Record

T = TypeVar("T")
FILES = {
    "general": "general/openstax.jsonl",
    "gsm8k": "gsm8k/test.jsonl",
    "xstest": "safety/xstest.jsonl",
    "ifeval": "instructions/ifeval.jsonl",
}


def shipped_records(name: Literal["general", "gsm8k", "xstest", "ifeval"], limit: int | None = None) -> list[Record]:
    """Return at most `limit` records of a shipped file, evenly spread over it."""
    text = (recipe.folder() / "results" / FILES[name]).read_text(encoding="utf-8")
    return spread([json.loads(line) for line in text.splitlines()], limit)


def spread(items: Sequence[T], limit: int | None) -> list[T]:
    """Return at most `limit` items, evenly spread over all; None for all."""
    count = len(items) if limit is None else min(limit, len(items))
    return [items[i * len(items) // count] for i in range(count)]
