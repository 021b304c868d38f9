"""Inputs of charts beside the numbers: axis ranges, and the Pareto frontier of rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from neft_zoo.compare.experiment import CHOSEN_BY, POINTS, Column, Experiment, Row
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.statistics import Difference

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


def ranges(experiment: Experiment, rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Return the ends of every metric's axis, shared by the end and the best evaluation."""
    return {
        name: axis_range(
            [row.cells[name, when].difference for row in rows for when in POINTS if (name, when) in row.cells],
            metric(name).digits,
        )
        for name in dict.fromkeys(name for name, _ in experiment.columns)
    }


def frontier(rows: Sequence[Row], column: Column = (CHOSEN_BY, "end")) -> list[Row]:
    """Return the rows that no row of equal or less compute beats in a metric, cheapest first.

    Empty for a metric without a better direction.
    """
    sign = {"lower": 1.0, "higher": -1.0}.get(metric(column[0]).better or "")
    if sign is None:
        return []
    priced = [
        (
            row.compute,
            sign * (cell.difference.mean if cell.difference and cell.difference.mean is not None else 0.0),
            row,
        )
        for row in rows
        if row.compute is not None and (cell := row.cells.get(column)) is not None and cell.mean is not None
    ]
    best, chosen = float("inf"), []
    for _, value, row in sorted(priced, key=lambda each: each[:2]):
        if value < best:
            best = value
            chosen.append(row)
    return chosen
