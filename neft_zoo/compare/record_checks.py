"""What a record that was read must hold: values of its fields' types, and what a run that ended well has."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from neft_zoo.compare.metrics import read_margins
from neft_zoo.compare.records import RunRecord
from neft_zoo.errors import NoiseError


def wrong_field(record: RunRecord) -> str | None:
    """Return the name of the first field with a value that no run has; None if there is none."""
    for name, hint in _declared(RunRecord).items():
        if not _fits(getattr(record, name), hint):
            return name
    points = {"end": record.end, "best": record.best} if record.ok else {}
    held = {name: point is not None and point.metrics.get("test_loss") is not None for name, point in points.items()}
    held |= {
        "noise": isinstance(record.noise.get("name"), str),
        "record_losses": _are_of_same_records(record.record_losses or {}),
        "margins": _are_margins(record.margins),
    }
    return next((name for name, is_held in held.items() if not is_held), None)


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value has a declared type; a number must be finite, and may be whole where it need not be."""
    kind, arguments = get_origin(hint), get_args(hint)
    if kind in (Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if kind is Literal:
        return value in arguments
    if kind is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if kind is dict:
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    if hint in (int, float):
        is_number = isinstance(value, (int, hint)) and not isinstance(value, bool)
        return is_number and abs(value) <= sys.float_info.max
    return isinstance(value, hint) and all(_fits(getattr(value, name), each) for name, each in _declared(hint).items())


@cache
def _declared(kind: Any) -> Mapping[str, Any]:
    """Return the types of a dataclass's fields; none for another class."""
    return get_type_hints(kind) if is_dataclass(kind) else {}


def _are_of_same_records(losses: Mapping[str, list[float]]) -> bool:
    """Return whether all lists are of the same test records, some of whose tokens are graded."""
    if not losses:
        return True
    tokens = losses.get("tokens", [])
    return any(tokens) and min(tokens) >= 0 and all(len(each) == len(tokens) for each in losses.values())


def _are_margins(margins: object) -> bool:
    try:
        read_margins(margins)
    except NoiseError:
        return False
    return True
