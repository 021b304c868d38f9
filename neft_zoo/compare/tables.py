"""The tables of a comparison, in Markdown and CSV."""

from __future__ import annotations

import csv
import io

from neft_zoo.compare.statistics import MANY
from neft_zoo.compare.summary import Line, Summary

HEADINGS = {
    "end": "at the end of training",
    "best": "at each run's evaluation with the lowest test loss",
}


COLUMNS = (
    "row",
    "seeds",
    "mean",
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
    "Losses are in nats per graded token, with the noise off. *Difference*: mean over the seeds of row minus `none`, "
    f"paired by seed. *Interval*: Student's t below {MANY} seeds, bootstrap from there; not corrected. *p*: corrected "
    "by Holm's method over all rows and metrics of this report, and so is the *verdict*, at 5 %: an interval may "
    "leave 0 out where the verdict, which answers for all of them at once, shows no difference. *Compute*: tokens "
    "times passes, and *time*: training without evaluation, both relative to `none`. *Per compute*: difference / "
    "compute. The best evaluation is chosen by the test loss itself, in every row alike."
)


def markdown(summary: Summary) -> str:
    """Return the report in Markdown."""
    parts = [f"# {summary.recipe}: strategies against `none`"]
    for metric in summary.metrics:
        parts.append(f"## {heading(metric)}")
        rows = [cells(line) for line in summary.lines if line.metric == metric]
        lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
        parts.append("\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines))
    parts.append(EXPLAINED)
    if summary.notes:
        parts.append("\n".join(f"* {note}" for note in summary.notes))
    return "\n\n".join(parts) + "\n"


def heading(metric: str) -> str:
    """Return a metric in words."""
    name, _, when = metric.rpartition(" ")
    return f"{name.replace('_', ' ').capitalize()} {HEADINGS[when]}"


def cells(line: Line) -> tuple[str, ...]:
    """Return the cells of a table's line; what is missing is a dash."""
    difference = line.difference
    seeds = str(line.seeds) if line.seeds == line.asked else f"{line.seeds} of {line.asked}"
    low, high = (difference.low, difference.high) if difference else (None, None)
    interval = "-" if low is None or high is None else f"{number(low, '+.4f')} to {number(high, '+.4f')}"
    return (
        line.row,
        seeds,
        number(line.mean, ".4f"),
        number(difference.mean if difference else None, "+.4f"),
        interval,
        "-" if line.corrected is None else f"{line.corrected:.3f}" if line.corrected >= 0.001 else "< 0.001",
        line.verdict,
        str(line.passes),
        number(line.compute, ".2f"),
        number(line.time, ".2f"),
        number(line.per_compute, "+.4f"),
    )


def number(value: float | None, form: str) -> str:
    """Return a number in a form, without a minus before a zero; a dash for a missing one."""
    text = "-" if value is None else format(value, form)
    return text.replace("-", "+") if value is not None and float(text) == 0 else text


def table(summary: Summary) -> str:
    """Return the report as CSV, a line per row and metric, numbers in full; what is missing is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = "recipe row metric when seeds asked mean difference low high p corrected_p verdict passes compute time"
    writer.writerow([*names.split(), "per_compute"])
    for line in summary.lines:
        name, _, when = line.metric.rpartition(" ")
        found = line.difference
        numbers = [found.mean, found.low, found.high, found.p] if found else [None] * 4
        told = [line.corrected, line.verdict, line.passes, line.compute, line.time, line.per_compute]
        writer.writerow([summary.recipe, line.row, name, when, line.seeds, line.asked, line.mean, *numbers, *told])
    return file.getvalue()
