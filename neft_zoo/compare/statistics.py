"""Paired statistics: the difference between a row and its baseline, with interval and p value.

Rows share data order and dropout at every seed, so the differences per seed are analysed, by Student's t for interval
and p value at any number of seeds, so that an interval and the verdicts from it agree. A bootstrap cannot make up for
unseen values: with 3 seeds its 95 % interval misses the true value several times too often. An exact sign-flip test
cannot reach a p value below 0.25 with 3 seeds and 0.06 with 5, so it could not show anything.

The p values of rows that answer one question are corrected by Holm's method (see `verdicts`); intervals are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """A paired difference from a baseline.

    Attributes:
        values: per seed, in the metric's unit.
        mean: their mean; None without a pair.
        low: lower end of the 95 % interval; None with fewer than two pairs, or if all differ equally and not by 0.
        high: upper end of it.
        p: uncorrected p value of the hypothesis that the mean is 0; None with fewer than two pairs.
        over_records: ends of the 95 % interval over seeds and test records; None if records have no losses.
        is_of_other_runs: whether row and baseline are known to differ in another metric, so that equal values here are
            a result, as of a share that is 0 in both.
    """

    values: tuple[float, ...]
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    over_records: tuple[float, float] | None = None
    is_of_other_runs: bool = False


def paired(values: Sequence[float]) -> Difference:
    """Return mean, 95 % interval and p value of paired differences.

    Args:
        values: one finite difference per seed.
    """
    differences = np.asarray(values, dtype=float)
    measured = tuple(differences.tolist())
    if not measured:
        return Difference(())
    mean = float(differences.mean())
    if len(measured) < 2:
        return Difference(measured, mean)
    spread = float(differences.std(ddof=1))
    if spread <= 1e-12 * max(1e-300, float(np.abs(differences).max())):
        # All differences are equal, so t is infinite and its interval has no width: use sign flips, and no interval.
        if mean == 0:
            return Difference(measured, mean, mean, mean, 1.0)
        return Difference(measured, mean, p=2.0 ** (1 - len(measured)))
    error = spread / math.sqrt(len(measured))
    half = float(special.stdtrit(len(measured) - 1, 1 - LEVEL / 2)) * error
    p = 2.0 * float(special.stdtr(len(measured) - 1, -abs(mean) / error))
    return Difference(measured, mean, mean - half, mean + half, p)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Return p values corrected by Holm's method for their number; None stays None and does not count."""
    known = sorted((p, index) for index, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[index] = largest
    return corrected
