"""The files that pages load on demand: an experiment's numbers as JSON, and everything as CSV."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from neft_zoo.compare.axes import from_none, frontier, ranges
from neft_zoo.compare.experiment import POINTS, Cell, Column, Experiment, Row
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.statistics import Difference
from neft_zoo.compare.tables import table

from .wants import short
from .words import about, row_name, title

# Columns of the short table: the first of each group that was measured.
CHOICES: tuple[tuple[Column, ...], ...] = (
    (("test_loss", "end"),),
    (("test_loss", "best"),),
    (("ifeval_prompt_strict", "end"), ("test_accuracy", "end")),
    (("train_rouge_l", "end"), ("train_prefix", "end")),
    (("general_text_change", "end"), ("general_text_loss", "end")),
)
COSTS = {"compute": "compute", "time": "training time"}
RELATIVE: dict[str, object] = {"unit": "relative to none", "digits": 2, "cost": True}
PRECISION = "{:.5g}"


def files(experiments: Sequence[Experiment]) -> dict[str, str]:
    """Return the files of all experiments by path."""
    made = {}
    for experiment in experiments:
        text = json.dumps(described(experiment), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        made[f"data/{experiment.key}.json"] = text
        # A page opened from a folder may not fetch a file, but may run a script.
        made[f"data/{experiment.key}.js"] = f"window.neftLoaded({json.dumps(experiment.key)}, {_safe(text)});\n"
        made[f"data/{experiment.key}.csv"] = table(experiment)
    tables = [made[f"data/{each.key}.csv"].partition("\n") for each in experiments]
    if tables:
        made["data/results.csv"] = tables[0][0] + "\n" + "".join(rest for _, _, rest in tables)
    return made


def _safe(text: str) -> str:
    return text.replace("<", "\\u003c")


def chosen(experiment: Experiment) -> list[Column]:
    """Return the columns of the short table."""
    known = set(experiment.columns)
    first = [next((column for column in each if column in known), None) for each in CHOICES]
    return [column for column in first if column is not None]


def described(experiment: Experiment) -> dict[str, object]:
    """Return all numbers of an experiment, with what charts need."""
    columns, shown = experiment.columns, short(experiment)
    fronts = {column: {id(row) for row in frontier(experiment, column)} for column in columns}
    axes, from_nones = ranges(experiment, shown), ranges(experiment, shown, from_none)
    ranks = {id(row): rank for rank, row in enumerate(shown, start=1)}
    return {
        "key": experiment.key,
        "title": title(experiment),
        "setting": about(experiment),
        "short": [f"{name}.{when}" for name, when in chosen(experiment)],
        "columns": [
            *(_column(column, axes, from_nones) for column in columns),
            *({"key": key, "label": label, **RELATIVE} for key, label in COSTS.items()),
        ],
        "rows": [_row(row, experiment, fronts, ranks.get(id(row), 0)) for row in experiment.rows],
    }


Axes = Mapping[str, tuple[float, float]]


def _column(column: Column, axes: Axes, from_nones: Axes) -> dict[str, object]:
    name, when = column
    kind = metric(name)
    return {
        "key": f"{name}.{when}",
        "label": label_of(column),
        "unit": kind.unit,
        "better": kind.better or "",
        "digits": kind.digits,
        "cost": kind.source == "cost",
        "axis": [_rounded(end) for end in axes[name]],
        "from_none": [_rounded(end) for end in from_nones[name]],
    }


def label_of(column: Column) -> str:
    """Return the name of a column: the metric and, if there are two, the point."""
    name, when = column
    return f"{metric(name).label}, {POINTS[when]}" if name == "test_loss" else metric(name).label


def _row(row: Row, experiment: Experiment, fronts: Mapping[Column, set[int]], rank: int) -> dict[str, object]:
    cells = {
        f"{name}.{when}": _cell(row.cells[name, when], id(row) in fronts[name, when])
        for name, when in experiment.columns
        if (name, when) in row.cells
    }
    if row.baseline is not None and row.baseline is not experiment.none:
        for name, when in row.cells.keys() & {*experiment.columns}:
            cells[f"{name}.{when}"]["from_none"] = _ends(from_none(row, experiment.none, (name, when)))
    costs = {key: {"mean": _rounded(value)} for key in COSTS if (value := getattr(row, key)) is not None}
    return {
        "name": row_name(row),
        "href": f"strategies/{row.entry}.html" if row.entry else "",
        "family": row.family,
        "short": rank,
        "baseline": row.baseline is None,
        "failed": row.failed,
        "runs": [[record.seed, path.as_posix(), record.ok] for path, record in row.runs],
        "cells": {**cells, **costs},
    }


def _cell(cell: Cell, front: bool) -> dict[str, object]:
    digits = {"mean": cell.mean, "of": cell.baseline}
    if cell.difference is not None:
        digits |= {"diff": cell.difference.mean, "low": cell.difference.low, "high": cell.difference.high}
    made: dict[str, object] = {key: _rounded(value) for key, value in digits.items() if value is not None}
    made["seeds"] = cell.pairs
    if cell.verdict is not None:
        made["verdict"] = cell.verdict.word
        if (says := cell.verdict.text()) != cell.verdict.word:
            made["says"] = says
    return {**made, "front": 1} if front else made


def _ends(each: Difference | None) -> list[float]:
    """Return a mean and the ends of its interval, without those that are unknown."""
    values = [each.mean, each.low, each.high] if each is not None else []
    return [_rounded(value) for value in values if value is not None]


def _rounded(value: float) -> float:
    return float(PRECISION.format(value))
