"""Inputs of charts beside the numbers: axis ranges, and the Pareto frontier of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from neft_zoo.compare.experiment import CHOSEN_BY, POINTS, Column, Experiment, Row
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.statistics import Difference, paired

INNER = (10, 90)  # percentiles of the means at the ends of an axis
ROOM = 0.25  # margin on both sides, relative to their distance


def axis_range(differences: Iterable[Difference | None], digits: int) -> tuple[float, float]:
    """Return the ends of an axis for paired differences, which always includes 0.

    A single outlier would compress all other rows, so the axis spans the 10th to 90th percentile of the means, with a
    margin; points outside are drawn as arrows. The axis is never narrower than the digits that tables show.

    Args:
        differences: of the rows to draw; None, and those without a mean, are skipped.
        digits: decimals of the metric in tables.
    """
    means = [each.mean for each in differences if each is not None and each.mean is not None]
    low, high = np.percentile(means, INNER).tolist() if means else (0.0, 0.0)
    low, high = min(low, 0.0), max(high, 0.0)
    room = max(ROOM * (high - low), (10.0 ** (1 - digits) - (high - low)) / 2)
    return low - room, high + room


def from_baseline(row: Row, none: Row, column: Column) -> Difference | None:
    """Return a row's difference from its own baseline, or None if there is none."""
    return row.cells[column].difference if column in row.cells else None


def from_none(row: Row, none: Row, column: Column) -> Difference | None:
    """Return a row's difference from `none`, or None if there is none; at equal compute baselines differ."""
    if column not in row.cells or row.baseline is none:
        return from_baseline(row, none, column)
    return paired(row.minus(none, *column))


def ranges(
    experiment: Experiment,
    rows: Sequence[Row],
    of: Callable[[Row, Row, Column], Difference | None] = from_baseline,
) -> dict[str, tuple[float, float]]:
    """Return the ends of every metric's axis, shared by the end and the best evaluation.

    Args:
        experiment: whose metrics they are.
        rows: those to draw.
        of: returns the difference of a row that is drawn.
    """
    return {
        name: axis_range(
            [of(row, experiment.none, (name, when)) for row in rows for when in POINTS], metric(name).digits
        )
        for name in dict.fromkeys(name for name, _ in experiment.columns)
    }


def frontier(experiment: Experiment, column: Column = (CHOSEN_BY, "end")) -> list[Row]:
    """Return the rows that no row of equal or less compute beats in a metric, cheapest first.

    All are ranked by their differences from `none`. Empty for a metric without a better direction.
    """
    sign = {"lower": 1.0, "higher": -1.0}.get(metric(column[0]).better or "")
    if sign is None:
        return []
    differences = [(row, from_none(row, experiment.none, column)) for row in experiment.rows]
    priced = [
        (row.compute, sign * each.mean, row)
        for row, each in differences
        if row.compute is not None and each is not None and each.mean is not None
    ]
    best, chosen = float("inf"), []
    for _, value, row in sorted(priced, key=lambda each: each[:2]):
        if value < best:
            best = value
            chosen.append(row)
    return chosen
