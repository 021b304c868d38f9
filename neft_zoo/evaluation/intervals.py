"""95 % intervals of shares and means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z = 1.959964  # 95 %
FEW = 30  # values, or clusters, whose spread is too uncertain to go by


def wilson(share: float, count: float) -> list[float]:
    """Return Wilson's interval of a share of `count` values in [0, 1]; unless all are 0 or 1 it is too wide.

    Unlike share and standard error it stays inside 0 to 1 and has a width where all values agree.
    """
    shrink = 1 + Z**2 / count
    center = (share + Z**2 / (2 * count)) / shrink
    half = Z / shrink * math.sqrt(max(share * (1 - share), 0.0) / count + Z**2 / (4 * count**2))
    return [min(share, center - half), max(share, center + half)]  # rounding may leave a share of 0 or 1 outside


def mean_interval(values: Sequence[float] | np.ndarray) -> list[float]:
    """Return Wilson's interval of the mean of values in [0, 1], scaled to their spread.

    Values between 0 and 1 spread less than zeros and ones of the same mean: they count as the number of these that
    would have a mean as certain. Where there are few, each counts as one: the interval is then too wide.
    """
    array = np.asarray(values, float)
    mean, spread = float(array.mean()), float(array.var(ddof=1)) if len(array) > 1 else 0.0
    few = len(array) < FEW or not spread
    return wilson(mean, len(array) if few else max(len(array), len(array) * mean * (1 - mean) / spread))


def cluster_interval(clusters: Sequence[Sequence[bool]]) -> list[float]:
    """Return Wilson's interval of the share of true values, for as many as would be as certain if none were clustered.

    Where there are few clusters, or all values agree, each cluster counts as one value: the interval is then too wide,
    where a bootstrap would have none.

    Args:
        clusters: values that may depend on each other, such as the instructions of one prompt.
    """
    hits, sizes = (np.array([count(cluster) for cluster in clusters], float) for count in (sum, len))
    share, count = float(hits.sum() / sizes.sum()), len(clusters)
    squares = float(((hits - share * sizes) ** 2).sum())
    if count < FEW or not squares:
        return wilson(share, count)
    variance = squares * count / (count - 1) / sizes.sum() ** 2  # of a ratio of sums
    return wilson(share, share * (1 - share) / variance)
