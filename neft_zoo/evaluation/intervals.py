"""95 % confidence intervals of shares and means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z = 1.959964  # 95 %
FEW = 30  # values, or clusters, below which their spread is too uncertain to use


def wilson(share: float, count: float) -> list[float]:
    """Return Wilson's interval for the mean of values in [0, 1]; it is conservative unless all are 0 or 1.

    Unlike mean and standard error, it stays within [0, 1] and has a width even if all values agree.
    """
    shrink = 1 + Z**2 / count
    center = (share + Z**2 / (2 * count)) / shrink
    half = Z / shrink * math.sqrt(max(share * (1 - share), 0.0) / count + Z**2 / (4 * count**2))
    return [min(share, center - half), max(share, center + half)]  # rounding could exclude a share of 0 or 1


def mean_interval(values: Sequence[float] | np.ndarray) -> list[float]:
    """Return Wilson's interval for the mean of values in [0, 1], with the sample size scaled by their variance.

    Values between 0 and 1 vary less than zeros and ones with the same mean, so the sample size is the number of zeros
    and ones that would give the same standard error. With few values, each counts as one, which is conservative.
    """
    array = np.asarray(values, float)
    mean, spread = float(array.mean()), float(array.var(ddof=1)) if len(array) > 1 else 0.0
    few = len(array) < FEW or not spread
    return wilson(mean, len(array) if few else max(len(array), len(array) * mean * (1 - mean) / spread))


def cluster_interval(clusters: Sequence[Sequence[bool]]) -> list[float]:
    """Return Wilson's interval for the share of true values, with the effective sample size of clustered values.

    With few clusters, or if all values agree, each cluster counts as one value. This is conservative, while a
    bootstrap interval would have no width.

    Args:
        clusters: values that may depend on each other, such as the instructions in one prompt.
    """
    hits, sizes = (np.array([count(cluster) for cluster in clusters], float) for count in (sum, len))
    share, count = float(hits.sum() / sizes.sum()), len(clusters)
    squares = float(((hits - share * sizes) ** 2).sum())
    if count < FEW or not squares:
        return wilson(share, count)
    variance = squares * count / (count - 1) / sizes.sum() ** 2  # of a ratio of sums
    return wilson(share, share * (1 - share) / variance)
