"""95 % intervals of shares and means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z = 1.959964  # 95 %
RESAMPLES = 2000


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
    would have a mean as certain.
    """
    array = np.asarray(values, float)
    mean, spread = float(array.mean()), float(array.var(ddof=1)) if len(array) > 1 else 0.0
    largest = mean * (1 - mean)
    effective = len(array) if not spread else max(len(array), len(array) * largest / spread)
    return wilson(mean, effective) if len(array) > 1 else [0.0, 1.0]


def cluster_interval(clusters: Sequence[Sequence[bool]], seed: int = 0) -> list[float]:
    """Return the bootstrap interval of the share of true values, resampling clusters.

    Args:
        clusters: values that may depend on each other, such as the instructions of one prompt.
        seed: of the resampling.
    """
    hits, sizes = (np.array([count(cluster) for cluster in clusters]) for count in (sum, len))
    chosen = np.random.default_rng(seed).integers(0, len(clusters), (RESAMPLES, len(clusters)))
    shares = hits[chosen].sum(1) / sizes[chosen].sum(1)
    return np.quantile(shares, [0.025, 0.975]).tolist()
