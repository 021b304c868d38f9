"""The pivot of a comparison: rows by metrics, each with its mean over seeds and its paired difference to `none`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd

from neft_zoo.compare.experiment import POINTS, Cell, Column, Experiment, Row, is_shown
from neft_zoo.compare.labels import label, natural
from neft_zoo.compare.metrics import metric, values
from neft_zoo.compare.records import RunRecord, When
from neft_zoo.compare.statistics import Difference, holm, paired, verdict
from neft_zoo.errors import NoiseError


def is_reported(name: str, when: When) -> bool:
    """Return whether a report has a table for a metric at a point: what was measured, and no derived numbers."""
    return is_shown(name, when) and metric(name).source in ("history", "evaluation")


def summarize(
    runs: Mapping[Path, RunRecord],
    name: str = "",
    included: Callable[[str, When], bool] = is_reported,
    question: Callable[[str], Hashable] = lambda metric: "",
) -> Experiment:
    """Pivot the results of one recipe.

    Args:
        runs: record by file.
        name: of the experiment; the recipe's by default.
        included: whether a metric at a point is wanted.
        question: returns the family in which the p values of a metric are corrected together.

    Raises:
        NoiseError: if `none`, which everything is compared with, is not among them.
    """
    rows = _rows(runs)
    if not rows or rows[0].entry != "none" or not rows[0].records:
        raise NoiseError("results must hold runs of none, which everything is compared with; compare again.")
    drafts = {
        (index, column): draft
        for column, series in _frame(rows).items()
        if included(*column)
        for index, draft in enumerate(_column(series, rows))
        if draft is not None
    }
    families: dict[Hashable, list[tuple[int, Column]]] = defaultdict(list)
    for place in drafts:
        families[question(place[1][0])].append(place)
    for places in families.values():
        tested = [_p(place[1][0], drafts[place].difference) for place in places]
        for place, corrected in zip(places, holm(tested), strict=True):
            rows[place[0]].cells[place[1]] = _judged(place[1][0], drafts[place], corrected)
    for row in rows:
        row.compute = _ratio(row, rows[0], lambda record: record.passes * (record.tokens or 0))
        row.time = _ratio(row, rows[0], lambda record: record.wall_s or 0.0)
    first = rows[0].runs[0][1]
    return Experiment(name or first.recipe.name, rows, first.config, _notes(rows))


def _rows(runs: Mapping[Path, RunRecord]) -> list[Row]:
    """Return the rows without cells: `none` first, then strategies and controls by name."""
    labels = label(runs.values())
    grouped: dict[str, list[tuple[Path, RunRecord]]] = defaultdict(list)
    for path, record in sorted(runs.items(), key=lambda run: run[1].seed):
        grouped[record.row].append((path, record))
    rows = [
        Row(labels[key], None if group[0][1].control else str(group[0][1].noise["name"]), group)
        for key, group in grouped.items()
    ]
    return sorted(rows, key=lambda row: (row.entry != "none", row.entry is None, natural(row.label)))


def _frame(rows: list[Row]) -> dict[Column, pd.DataFrame]:
    """Return a frame for every metric and point: a line per row, a column per seed, NaN where nothing was measured."""
    lines = [
        (index, record.seed, name, when, value)
        for index, row in enumerate(rows)
        for record in row.records
        for when in POINTS
        for name, value in values(record, when).items()
    ]
    table = pd.DataFrame(lines, columns=["row", "seed", "metric", "when", "value"])
    groups = table.groupby(["metric", "when"], sort=False)
    return {
        (str(name), when): group.pivot_table(index="row", columns="seed", values="value").reindex(range(len(rows)))
        for (name, when), group in groups  # pyright: ignore[reportGeneralTypeIssues]
    }


def _column(frame: pd.DataFrame, rows: list[Row]) -> list[Cell | None]:
    """Return the cells of one metric, without verdicts."""
    measured = frame.to_numpy(dtype=float)
    differences = measured - measured[0]
    cells: list[Cell | None] = []
    for index in range(len(rows)):
        own, paired_values = (each[index][~np.isnan(each[index])].tolist() for each in (measured, differences))
        difference = paired(paired_values) if index else None
        cells.append(Cell(fmean(own), len(own), difference, None, "-") if own else None)
    return cells


def _p(name: str, difference: Difference | None) -> float | None:
    """Return the p value to correct; what a run costs is not tested."""
    return None if difference is None or metric(name).source == "cost" else difference.p


def _judged(name: str, cell: Cell, corrected: float | None) -> Cell:
    if cell.difference is None or metric(name).source == "cost":
        return cell
    words = verdict(cell.difference, corrected, metric(name).better)
    return Cell(cell.mean, cell.seeds, cell.difference, corrected, words)


def difference(row: Row, other: Row, name: str, when: When) -> Difference:
    """Return the paired difference of two rows in a metric, row minus other."""
    ours, theirs = row.values(name, when), other.values(name, when)
    return paired([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def _ratio(row: Row, none: Row, cost: Callable[[RunRecord], float]) -> float | None:
    """Return a cost relative to `none`, over the seeds that both have."""
    ours, theirs = ({record.seed: cost(record) for record in each.records} for each in (row, none))
    shared = ours.keys() & theirs.keys()
    total = sum(theirs[seed] for seed in shared)
    return sum(ours[seed] for seed in shared) / total if total else None


def _notes(rows: list[Row]) -> list[str]:
    notes = [
        f"{row.label}, seed {record.seed}, failed: {record.error or 'no reason given'}"
        for row in rows
        for _, record in row.runs
        if not record.ok
    ]
    ended = [record for row in rows for record in row.records]
    if any(record.share != 1.0 for record in ended):
        notes.append("Compute-matched: a strategy of k passes trained for 1/k of the steps.")
    for what in ("versions", "device"):
        differing = {str(getattr(record, what)) for record in ended}
        if len(differing) > 1:
            notes.append(f"Runs differ in {what}: {'; '.join(sorted(differing))}. Compare again for a fair table.")
    return notes
