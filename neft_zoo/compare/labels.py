"""Row labels: the name of a strategy or control, with the arguments that are not its defaults or that differ."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction

from neft_zoo.compare.records import RunRecord
from neft_zoo.console import printable
from neft_zoo.errors import NoiseError
from neft_zoo.registry.entries import entry, make


def label(records: Iterable[RunRecord]) -> dict[str, str]:
    """Return a short label for every row, by its hash."""
    rows = {record.row: record for record in records}
    named: dict[str, dict[str, RunRecord]] = defaultdict(dict)
    for key, record in rows.items():
        named[_name(record)][key] = record
    return {key: each for name, group in named.items() for key, each in _within(name, group).items()}


def _name(record: RunRecord) -> str:
    """Return the name of a strategy or control; for plain training of another length, the length."""
    if not record.is_other_length:
        return record.name
    if not record.control:
        share = Fraction(record.share).limit_denominator(1000)
        return f"none, {share} {'of' if share < 1 else 'times'} the steps"
    option, value = next(iter(record.overrides.items()))
    unit = "epoch" if option == "num_train_epochs" else "step"
    return f"none, {value} {unit}{'' if value == 1 else 's'}"


def _within(name: str, group: dict[str, RunRecord]) -> dict[str, str]:
    """Return the labels of rows that share a name."""
    chosen = {key: {**record.noise, **(record.overrides if record.control else {})} for key, record in group.items()}
    names = dict.fromkeys(name for arguments in chosen.values() for name in arguments)
    shown = {each for record in group.values() for each in _changed(record)}
    shown |= {each for each in names if len({str(arguments.get(each)) for arguments in chosen.values()}) > 1}
    several = len({record.version for record in group.values()}) > 1
    return {
        key: printable(
            name
            + "".join(_spell(argument, chosen[key].get(argument), name) for argument in names if argument in shown)
            + (f" version {group[key].version}" if several else "")
        )
        for key in group
    }


def _changed(record: RunRecord) -> set[str]:
    """Return the arguments that are not the entry's defaults; none if its version is another or it is not here."""
    name = str(record.noise["name"])
    try:
        defaults = make(name).to_dict() if entry(name).version == record.version else {}
    except NoiseError:
        return set()
    return {each for each, value in record.noise.items() if each in defaults and defaults[each] != value}


def _spell(argument: str, value: object, name: str) -> str:
    """Return an argument with its value; a switch as its name if on, and a control's own option as its value."""
    if isinstance(value, bool):
        return f" {argument}" if value else ""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"={text}" if argument == name else f" {argument}={text}"


def natural(text: str) -> list[tuple[float, str]]:
    """Return a sort key that puts alpha=5 before alpha=10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(float(part), "") if place % 2 else (0.0, part) for place, part in enumerate(parts)]
