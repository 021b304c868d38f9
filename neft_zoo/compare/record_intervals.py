"""Intervals over seeds and test records: how a difference would vary with other seeds and other test records.

An interval over seeds alone covers other seeds on the same test records. These are a sample too, and the same in every
run, so more seeds cannot make up for few records. Here both are resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neft_zoo.compare.records import RunRecord, When
from neft_zoo.compare.statistics import LEVEL

if TYPE_CHECKING:
    from jaxtyping import Float

RESAMPLES = 4999
FEWEST = 3  # pairs; with two, Student's t is too wide to be useful


def over_records(pairs: Sequence[tuple[RunRecord, RunRecord]], when: When) -> tuple[float, float] | None:
    """Return the 95 % interval of a paired difference in test loss, over seeds and test records.

    Args:
        pairs: a row's run and its baseline's, for each seed.
        when: the end, or each run's best evaluation.

    Returns:
        Its ends in nats per token; None with fewer than three pairs, or if runs do not have losses of the same
            records.
    """
    runs = [record.record_losses or {} for pair in pairs for record in pair]
    lengths = {tuple(run.get("tokens", ())) for run in runs}
    if len(pairs) < FEWEST or len(lengths) != 1 or lengths == {()} or any(when not in run for run in runs):
        return None
    losses = np.array([run[when] for run in runs])
    return interval(losses[::2] - losses[1::2], np.array(*lengths, dtype=float))


def interval(
    differences: Float[np.ndarray, "S R"], tokens: Float[np.ndarray, " R"], seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of the mean difference per token, over seeds and records.

    Records are resampled in pairs, together with all their seeds. There are too few seeds to resample: a bootstrap of
    3 seeds misses the true value several times too often. Their contribution is an error from Student's t
    distribution, as in the interval over seeds alone. The variation of single records between seeds is in both
    contributions, which makes the interval conservative.

    Args:
        differences: row minus baseline in the mean loss of every record, for every seed.
        tokens: number of graded tokens of every record.
        seed: of the resampling.
    """
    random = np.random.default_rng(seed)
    seeds, records = differences.shape
    by_seed = differences @ tokens / tokens.sum()
    drawn = random.integers(records, size=(RESAMPLES, records))
    means = (differences.mean(0) * tokens)[drawn].sum(1) / tokens[drawn].sum(1)
    means += by_seed.std(ddof=1) / np.sqrt(seeds) * random.standard_t(seeds - 1, RESAMPLES)
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)
