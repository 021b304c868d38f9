"""What charts of a comparison need beside the numbers: the range of an axis, and rows that no cheaper one beats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from neft_zoo.compare.experiment import CHOSEN_BY, POINTS, Column, Experiment, Row
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.statistics import Difference

INNER = (10, 90)  # percentiles between which an axis lies
ROOM = 0.25  # of their distance, left on both sides


def axis_range(differences: Iterable[Difference | None], digits: int) -> tuple[float, float]:
    """Return the ends of an axis for paired differences, which always has 0 on it.

    One row far off would squeeze all others into a line, so the axis lies between the 10th and the 90th percentile of
    the means, with some room; what lies outside is drawn as an arrow. Differences below what tables show are not
    stretched.

    Args:
        differences: of the rows that are drawn; None and those without a mean are passed over.
        digits: decimals that tables show of the metric.
    """
    means = [each.mean for each in differences if each is not None and each.mean is not None]
    low, high = np.percentile(means, INNER).tolist() if means else (0.0, 0.0)
    low, high = min(low, 0.0), max(high, 0.0)
    room = max(ROOM * (high - low), (10.0 ** (1 - digits) - (high - low)) / 2)
    return low - room, high + room


def ranges(experiment: Experiment, rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Return the ends of the axis of every metric, for the end and the best evaluation together."""
    return {
        name: axis_range(
            [row.cells[name, when].difference for row in rows for when in POINTS if (name, when) in row.cells],
            metric(name).digits,
        )
        for name in dict.fromkeys(name for name, _ in experiment.columns)
    }


def frontier(rows: Sequence[Row], column: Column = (CHOSEN_BY, "end")) -> list[Row]:
    """Return the rows that no row of at most their compute beats in a metric, the cheapest first.

    Empty for a metric in which neither direction is good.
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
