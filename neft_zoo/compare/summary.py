"""The pivot of a comparison: rows by metrics, with means over seeds and paired differences from `none`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd

from neft_zoo.compare.experiment import CHOSEN_BY, POINTS, Cell, Column, Experiment, Row, is_shown
from neft_zoo.compare.labels import label, natural
from neft_zoo.compare.metrics import NATS, metric, values
from neft_zoo.compare.record_intervals import over_records
from neft_zoo.compare.records import RunRecord, When, needed
from neft_zoo.compare.statistics import Difference, paired
from neft_zoo.compare.verdicts import Verdict, judge, one_test
from neft_zoo.errors import NoiseError

NEARLY = 0.05  # largest relative difference in steps between a row and its baseline


def is_reported(name: str, when: When) -> bool:
    """Return whether a report has a table for a metric at a point: yes for measured, no for derived numbers."""
    return is_shown(name, when) and metric(name).source in ("history", "evaluation")


def summarize(
    runs: Mapping[Path, RunRecord], name: str = "", included: Callable[[str, When], bool] = is_reported
) -> Experiment:
    """Pivot the results of one recipe.

    Args:
        runs: records by file.
        name: of the experiment; by default the recipe's.
        included: returns whether a metric at a point is wanted.

    Raises:
        NoiseError: if there is no run of `none`, the baseline of every comparison.
    """
    rows = _rows(runs)
    if not rows or rows[0].entry != "none" or not rows[0].records:
        raise NoiseError("results must hold runs of none, which everything is compared with; compare again.")
    notes = _pair(rows)
    first = rows[0].runs[0][1]
    for column, frame in _frames(rows).items():
        if included(*column):
            _fill(column, frame, rows)
    experiment = Experiment(
        name or first.recipe.name, rows, first.config, [*_notes(rows), *notes], first.margins or {}
    )
    for each in {name for row in rows for name, _ in row.cells}:
        _judge(each, rows, experiment.margin(each))
    for row in rows:
        row.compute = _ratio(row, rows[0], lambda record: record.tokens and record.passes * record.tokens)
        row.time = _ratio(row, rows[0], _cpu_seconds, lambda record: record.wall_s)
    return experiment


def _rows(runs: Mapping[Path, RunRecord]) -> list[Row]:
    """Return the rows without cells: `none`, strategies, plain training of other lengths, and controls."""
    labels = label(runs.values())
    grouped: dict[str, list[tuple[Path, RunRecord]]] = defaultdict(list)
    for path, record in sorted(runs.items(), key=lambda run: run[1].seed):
        grouped[record.row].append((path, record))
    rows = []
    for key, group in grouped.items():
        first = group[0][1]
        named = first.control or first.is_other_length
        rows.append(Row(labels[key], None if named else str(first.noise["name"]), group))
    order = {"none": 0, "lengths": 2, "controls": 3}
    return sorted(rows, key=lambda row: (order.get(row.entry or row.question, 1), natural(row.label)))


def _pair(rows: list[Row]) -> list[str]:
    """Assign a baseline to every row, `none` or plain training for as many steps, and return notes."""
    none, *others = rows
    plain = [none, *(row for row in others if row.is_other_length)]
    for row in others:
        row.baseline = none
        if row.steps is None or row.is_other_length or row.runs[0][1].share == 1.0:
            continue
        # Steps are rounded twice: for the share of a strategy, and for a length or its epochs.
        seeds = {record.seed for record in row.records}
        common = {place: len(seeds & {record.seed for record in each.records}) for place, each in enumerate(plain)}
        gaps = {place: abs(each.steps - row.steps) for place, each in enumerate(plain) if each.steps is not None}
        nearest = min(gaps, key=lambda place: (gaps[place], -common[place]))
        row.is_matched = gaps[nearest] <= NEARLY * row.steps
        row.baseline = plain[nearest] if row.is_matched else none
    unmatched = [row.label for row in others if not row.is_matched]
    if not unmatched:
        return []
    return [
        f"No plain training for as many steps as {', '.join(unmatched)}: their differences are to none at its full "
        "length, so that they say nothing of the noise. Compare with --compute-matched again to add it."
    ]


def _frames(rows: list[Row]) -> dict[Column, pd.DataFrame]:
    """Return a frame per metric and point: a line per row, a column per seed, NaN for missing values."""
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


def _fill(column: Column, frame: pd.DataFrame, rows: list[Row]) -> None:
    """Fill in the cells of one metric, without verdicts."""
    measured = frame.to_numpy(dtype=float)
    places = {id(row): place for place, row in enumerate(rows)}
    for row, own in zip(rows, measured, strict=True):
        present = ~np.isnan(own)
        if not present.any():
            continue
        cell = Cell(fmean(own[present].tolist()), int(present.sum()))
        if row.baseline is not None:
            theirs = measured[places[id(row.baseline)]]
            shared = present & ~np.isnan(theirs)
            baseline = fmean(theirs[shared].tolist()) if shared.any() else None
            cell = replace(cell, baseline=baseline, difference=paired((own - theirs)[shared].tolist()))
            if column[0] == CHOSEN_BY and cell.difference is not None:
                cell = replace(cell, difference=_with_records(cell.difference, row, row.baseline, column[1]))
        row.cells[column] = cell


def _judge(name: str, rows: list[Row], margin: float) -> None:
    """Add verdicts for a metric: a question is a group of rows, at the end and the best evaluation together."""
    kind = metric(name)
    if kind.source == "cost":
        return
    # What no table shows is not asked, and must not count in the correction for what is.
    columns: list[Column] = [(name, when) for when in POINTS if is_shown(name, when)]
    questions: dict[str, list[tuple[Row, Column, Difference | None]]] = defaultdict(list)
    for row in rows[1:]:
        measured = [column for column in columns if column in row.cells]
        tests = one_test(*(_tested(row, column) if row.is_matched else None for column in measured))
        questions[row.question] += [(row, column, each) for column, each in zip(measured, tests, strict=True)]
    for places in questions.values():
        verdicts = judge([each for _, _, each in places], margin, kind.better)
        for (row, column, _), verdict in zip(places, verdicts, strict=True):
            verdict = verdict if row.is_matched else Verdict("no baseline")
            row.cells[column] = replace(row.cells[column], verdict=verdict)


def _tested(row: Row, column: Column) -> Difference | None:
    """Return a row's difference in a metric, marked if its runs are known to differ from the baseline's."""
    each = row.cells[column].difference
    losses = [cell.difference for (name, _), cell in row.cells.items() if name == CHOSEN_BY]
    return each and _marked(each, column[0], (loss.values for loss in losses if loss is not None))


def _marked(each: Difference, name: str, losses: Iterable[Sequence[float]]) -> Difference:
    """Return a difference in a metric, marked if its runs are known to differ by their differences in test loss."""
    # A loss that repeats in every digit is that of the same run up to there; shares repeat by chance.
    return replace(each, is_of_other_runs=metric(name).unit != NATS and any(map(any, losses)))


def difference(row: Row, other: Row, name: str, when: When) -> Difference:
    """Return the paired difference between two rows in a metric, row minus other."""
    losses = (row.minus(other, CHOSEN_BY, point) for point in POINTS)
    each = _marked(paired(row.minus(other, name, when)), name, losses)
    return _with_records(each, row, other, when) if name == CHOSEN_BY else each


def _with_records(each: Difference, row: Row, other: Row, when: When) -> Difference:
    """Return a difference in test loss, with its interval over seeds and test records added."""
    ours, theirs = ({record.seed: record for record in one.records} for one in (row, other))
    pairs = [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
    return replace(each, over_records=over_records(pairs, when))


def _ratio(row: Row, none: Row, *costs: Callable[[RunRecord], float | None]) -> float | None:
    """Return a cost relative to that of `none`, over the common seeds; None if a run lacks it.

    Of several costs, it is the first one that all these runs have: both sides are measured alike.
    """
    ours, theirs = ({record.seed: record for record in each.records} for each in (row, none))
    shared = ours.keys() & theirs.keys()
    for cost in costs:
        spent, usual = ([cost(each[seed]) for seed in shared] for each in (ours, theirs))
        if None not in (*spent, *usual) and (total := sum(map(needed, usual))):
            return sum(map(needed, spent)) / total
    return None


def _cpu_seconds(record: RunRecord) -> float | None:
    """Return the CPU time of a run that trained on a CPU, which other processes do not affect."""
    return record.cpu_s if record.device == "cpu" else None


def _notes(rows: list[Row]) -> list[str]:
    notes = [
        f"{row.label}, seed {record.seed}, failed: {record.error or 'no reason given'}"
        for row in rows
        for _, record in row.runs
        if not record.ok
    ]
    ended = [record for row in rows for record in row.records]
    if any(record.share != 1.0 and not record.is_other_length for record in ended):
        notes.append("Compute-matched: a strategy of k passes trained for 1/k of the steps.")
    for what in ("versions", "device", "margins"):
        differing = {str(getattr(record, what)) for record in ended}
        if len(differing) > 1:
            notes.append(f"Runs differ in {what}: {'; '.join(sorted(differing))}. Compare again for a fair table.")
    if len({tuple(record.record_losses["tokens"]) for record in ended if record.record_losses}) > 1:
        notes.append(
            "Runs differ in test records, or in which of their tokens are graded, so that their losses are not of the "
            "same text. Compare again for a fair table."
        )
    noisy = any(row.entry not in (None, "none") and row.records for row in rows)
    if noisy and not any(row.is_other_length and row.records for row in rows):
        notes.append(
            "Plain training was run at one length only, and stopping earlier may do as well as noise: compare with "
            "--lengths 1/4,1/2."
        )
    return notes
