"""The tables of a comparison, in Markdown and CSV."""

from __future__ import annotations

import csv
import io

from neft_zoo.compare.experiment import Cell, Column, Experiment, Row
from neft_zoo.compare.formats import csv_text, markdown_text, number, p_value
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.records import When
from neft_zoo.compare.reference import ENOUGH, Reference, find_reference
from neft_zoo.compare.samples import samples
from neft_zoo.compare.statistics import Difference
from neft_zoo.compare.summary import NEARLY
from neft_zoo.compare.verdicts import Verdict

HEADINGS: dict[When, str] = {
    "end": "at the end of training",
    "best": "at each run's evaluation with the lowest test loss",
}
COLUMNS = (
    "row",
    "seeds",
    "mean",
    "baseline",
    "difference",
    "95 % interval",
    "p",
    "verdict",
    "passes",
    "compute",
    "time",
    "per compute",
)
EXPLAINED = (
    "Losses are in nats per graded token, with the noise off. *Baseline*: mean of `none` over the row's seeds; in a "
    "compute-matched comparison, mean of plain training for as many steps. *Difference*: mean over seeds of row minus "
    "baseline, paired by seed. *Interval*: over seeds by Student's t, uncorrected. "
    "*Over records too*: paired bootstrap of the test records with Student's t for the seeds, if all runs have "
    "losses per record. *p*: corrected by Holm's method over the rows that answer one question (strategies at their "
    "defaults, the values of one strategy, lengths of plain training, controls) in one metric. *Verdict*, corrected "
    "likewise: *better* or *worse* if the difference is not 0, *practically the same* if it is smaller than the "
    "metric's margin, else *undecided*, with the effect that these seeds would have shown four times in five. "
    "*Compute*: tokens times passes, and *time*: training without evaluation (on a CPU, CPU time), both relative to "
    "`none`. *Per compute*: difference / compute. The best evaluation is chosen by the test loss itself, in every row."
)
REFERENCE = "Against the best plain run of any length"
REFERENCE_COLUMNS = ("row", "seeds", "difference", "95 % interval", "p", "verdict")
DIGITS = 4


def markdown(experiment: Experiment) -> str:
    """Return the report in Markdown."""
    parts = [f"# {markdown_text(experiment.name)}: strategies against `none`", samples(experiment)]
    for column in experiment.columns:
        parts.append(f"## {markdown_text(heading(column))}")
        rows = [tuple(map(markdown_text, cells(row, column))) for row in experiment.rows]
        lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    if (reference := find_reference(experiment)) is not None:
        lines = [REFERENCE_COLUMNS, ("---",) * len(REFERENCE_COLUMNS), *reference_rows(reference)]
        parts += [f"## {REFERENCE}", markdown_text(reference_sentence(reference))]
        parts.append("\n".join(f"| {' | '.join(map(markdown_text, line))} |" for line in lines))
    parts.append(EXPLAINED)
    if experiment.notes:
        parts.append("\n".join(f"* {markdown_text(note)}" for note in experiment.notes))
    return "\n\n".join(parts) + "\n"


def reference_sentence(reference: Reference) -> str:
    """Return a description of the best plain run of any length, and of how it was chosen."""
    how = "chosen on one half of the test records and measured on the other"
    if not reference.halves:
        how = "chosen and measured on the same test records, hence a little too good"
    if reference.seeds < max(ENOUGH, reference.none):
        how += f"; the length was chosen on {reference.seeds} of {reference.none} seeds"
    if reference.omitted:
        how += f", without {' and '.join(row.label for row in reference.omitted)} (too few seeds)"
    loss, row = number(reference.mean, DIGITS), reference.row
    return f"{row.label}{row.failures}: test loss {loss} at the end of training, {how}."


def reference_rows(reference: Reference) -> list[tuple[str, ...]]:
    """Return the table rows that are compared with the best plain run."""
    return [
        (
            row.label,
            str(len(each.values)),
            number(each.mean, DIGITS, sign=True),
            interval_cell(each),
            p_value(verdict.p),
            f"{verdict.text(DIGITS)}{row.failures}",
        )
        for row, each, verdict in reference.rows
    ]


def interval_cell(each: Difference) -> str:
    """Return the intervals of a difference, over seeds and over records too; a dash if there are none."""
    text = "-"
    if each.low is not None and each.high is not None:
        text = f"{number(each.low, DIGITS, sign=True)} to {number(each.high, DIGITS, sign=True)}"
    if each.over_records is None:
        return text
    low, high = (number(end, DIGITS, sign=True) for end in each.over_records)
    return f"{text} (over records too: {low} to {high})"


def heading(column: Column) -> str:
    """Return a metric and a point in words."""
    label = metric(column[0]).label
    return f"{label[:1].upper()}{label[1:]} {HEADINGS[column[1]]}"


def cell_of(row: Row, column: Column) -> Cell:
    """Return the cell of a row, or an empty cell if no run measured the metric."""
    if column in row.cells:
        return row.cells[column]
    if row.baseline is None:
        return Cell(None, 0)
    return Cell(None, 0, None, Difference(()), Verdict("not measured"))


def verdict_of(row: Row, cell: Cell) -> str:
    """Return a verdict, with the number of failed runs."""
    return f"{'-' if cell.verdict is None else cell.verdict.text(DIGITS)}{row.failures}"


def seeds_of(row: Row, cell: Cell) -> str:
    """Return the number of seeds with a result, and how many of them the baseline has too if it lacks some."""
    text = str(cell.seeds) if cell.seeds == len(row.runs) else f"{cell.seeds} of {len(row.runs)}"
    return text if cell.pairs == cell.seeds else f"{text}, {cell.pairs} paired"


def per_compute(row: Row, cell: Cell) -> float | None:
    """Return the difference per unit of compute, where `none` costs one unit.

    Return None for a row that costs less than `none`, since the quotient would extrapolate to more compute than was
    used, and for a row that is not tested.
    """
    if cell.difference is None or cell.difference.mean is None or not row.is_matched:
        return None
    if not row.compute or row.compute < 1 - NEARLY:
        return None
    return cell.difference.mean / row.compute


def cells(row: Row, column: Column) -> tuple[str, ...]:
    """Return the cells of a table row; missing values are dashes."""
    cell = cell_of(row, column)
    difference = cell.difference or Difference(())
    return (
        row.label,
        seeds_of(row, cell),
        number(cell.mean, DIGITS),
        number(cell.baseline, DIGITS),
        number(difference.mean, DIGITS, sign=True),
        interval_cell(difference),
        p_value(cell.verdict and cell.verdict.p),
        verdict_of(row, cell),
        str(row.passes),
        number(row.compute, 2),
        number(row.time, 2),
        number(per_compute(row, cell), DIGITS, sign=True),
    )


def table(experiment: Experiment) -> str:
    """Return the report as CSV, one line per row and metric, with unrounded numbers; missing values are empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = "recipe row metric when seeds asked mean baseline difference low high p corrected_p verdict passes compute"
    writer.writerow([*names.split(), "time", "per_compute", "records_low", "records_high", "pairs"])
    for column in experiment.columns:
        for row in experiment.rows:
            cell = cell_of(row, column)
            paired = cell.difference
            numbers = [paired.mean, paired.low, paired.high, paired.p] if paired else [None] * 4
            texts = [csv_text(text) for text in (experiment.name, row.label, *column)]
            costs = [row.passes, row.compute, row.time, per_compute(row, cell)]
            judged = [cell.verdict and cell.verdict.p, csv_text(verdict_of(row, cell))]
            wider = (paired and paired.over_records) or (None, None)
            counted = [cell.seeds, len(row.runs), cell.mean, cell.baseline]
            writer.writerow([*texts, *counted, *numbers, *judged, *costs, *wider, cell.pairs])
    return file.getvalue()
