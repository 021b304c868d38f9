"""Tables of results with a chart in every row: the paired differences at the end and at the best checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from neft_zoo.compare.axes import axis_range
from neft_zoo.compare.experiment import POINTS, Cell, Column, Row
from neft_zoo.compare.formats import interval_text
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.records import When
from neft_zoo.compare.reference import find_reference
from neft_zoo.compare.tables import REFERENCE, reference_sentence

from .data import label_of
from .tables import TEMPLATES, typeset, unbroken
from .words import row_name

KINDS = {"better": "better", "worse": "worse", "practically the same": "same", "undecided": "undecided"}
MAIN = "test_loss"
TEMPLATES.globals["kinds"] = KINDS


def results_table(
    rows: Sequence[Row], columns: Sequence[Column], caption: str, up: str = "", costs: bool = True
) -> Markup:
    """Return the table of some rows as HTML.

    Args:
        rows: those to show.
        columns: metrics and points of the differences.
        caption: title of the table.
        up: relative path to the site's root.
        costs: whether to show the compute.
    """
    kind = metric(MAIN)
    cells = [cell for row in rows for when in POINTS if (cell := row.cells.get((MAIN, when))) is not None]
    ends = axis_range([cell.difference for cell in cells], kind.digits)
    chart = {
        "title": f"{kind.label} minus the baseline, {kind.unit}",
        "ends": [typeset(end, kind.digits, sign=True) for end in ends],
        "better": kind.better,
    }
    heads = [label_of(column) for column in columns] + (["compute"] if costs else [])
    lines = [line_of(_at_their_seeds(row, rows), columns, ends, up, costs) for row in rows]
    made = TEMPLATES.get_template("results.html.j2").module.table  # type: ignore[attr-defined]
    return made(caption, chart, heads, lines, caption)


def _at_their_seeds(row: Row, rows: Sequence[Row]) -> Row:
    """Return a baseline whose means are over the seeds of its shown rows, where these are the same in all of them."""
    if row.baseline is not None:
        return row
    cells = dict(row.cells)
    for column, cell in row.cells.items():
        beside = {
            (other.baseline, other.pairs)
            for each in rows
            if each.baseline is row and (other := each.cells.get(column)) is not None and other.baseline is not None
        }
        if len(beside) == 1:
            mean, seeds = beside.pop()
            cells[column] = replace(cell, mean=mean, seeds=seeds)
    return replace(row, cells=cells)


def against_plain(experiment: Experiment, rows: Sequence[Row]) -> str:
    """Return rows compared with the best plain run of any length, "" if there is one length only."""
    reference, digits = find_reference(experiment), metric(MAIN).digits
    found = [] if reference is None else [each for each in reference.rows if each[0] in rows]
    if reference is None or not found:
        return ""
    texts = [f"{row_name(row)} {interval_text(each, digits)}, {said.text(digits)}" for row, each, said in found]
    return f"{REFERENCE}, {reference_sentence(reference)} Minus that: {'; '.join(texts)}."


def line_of(row: Row, columns: Sequence[Column], ends: tuple[float, float], up: str, costs: bool) -> dict[str, object]:
    """Return a row's data for the template, on an axis with these ends; see `results_table`."""
    points = {when: cell for when in POINTS if (cell := row.cells.get((MAIN, when))) is not None}
    marks = [_mark(cell, when, ends) for when, cell in points.items() if _is_drawn(cell)]
    cells = [_cell(row.cells.get(column), column) for column in columns]
    if costs:
        cells.append({"text": typeset(row.compute, 2), "title": "", "kind": "", "below": ""})
    spoken = "; ".join(f"{POINTS[when]} {interval_text(cell.difference, 3)}" for when, cell in points.items())
    return {
        "name": row_name(row),
        "href": f"{up}strategies/{row.entry}.html" if row.entry else "",
        "note": f"{row.failed} of {len(row.runs)} runs failed" if row.failed else "",
        "baseline": row.baseline is None,
        "marks": marks,
        "zero": _place(0.0, ends),
        "says": spoken,
        "cells": cells,
        "verdicts": [
            {"word": cell.verdict.word, "says": cell.verdict.text(), "point": when}
            for when, cell in points.items()
            if cell.verdict is not None
        ],
    }


def _is_drawn(cell: Cell) -> bool:
    return cell.difference is not None and cell.difference.mean is not None


def _place(value: float, ends: tuple[float, float]) -> float:
    """Return the position of a value on an axis, in percent of its length."""
    low, high = ends
    return round(100 * min(1.0, max(0.0, (value - low) / (high - low))), 2)


def _mark(cell: Cell, when: When, ends: tuple[float, float]) -> dict[str, object]:
    each = cell.difference
    assert each is not None and each.mean is not None
    low, high = (_place(end, ends) if end is not None else None for end in (each.low, each.high))
    return {
        "point": when,
        "kind": KINDS.get(cell.verdict.word if cell.verdict else "", "neutral"),
        "at": _place(each.mean, ends),
        "out": "below" if each.mean < ends[0] else "above" if each.mean > ends[1] else "",
        "left": low,
        "width": None if low is None or high is None else round(high - low, 2),
    }


def _cell(cell: Cell | None, column: Column) -> dict[str, object]:
    digits = metric(column[0]).digits
    if cell is None or cell.mean is None:
        return {"text": "-", "title": "", "kind": "", "below": ""}
    if cell.difference is None or cell.difference.mean is None:
        return {"text": typeset(cell.mean, digits), "title": f"{cell.seeds} seeds", "kind": "", "below": ""}
    text, _, interval = interval_text(cell.difference, digits).partition(" ")
    word = cell.verdict.word if cell.verdict else ""
    title = f"{typeset(cell.mean, digits)} against {typeset(cell.baseline, digits)} over {cell.pairs} seeds"
    title += f"; {cell.verdict.text(digits)}" if cell.verdict else ""
    return {"text": text.rstrip(","), "title": title, "kind": KINDS.get(word, ""), "below": unbroken(interval)}
