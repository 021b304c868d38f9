"""Intervals over seeds and test records hold the truth about as often as they say; those over seeds alone do not."""

from types import SimpleNamespace

import numpy as np
import pytest

from neft_zoo.compare import record_intervals
from neft_zoo.compare.record_intervals import interval, over_records
from neft_zoo.compare.statistics import paired

PARTS = {  # standard deviations of a difference: between seeds, between records, of a record from seed to seed
    "all": (0.003, 0.1, 0.05),
    "no_records": (0.003, 0.0, 0.05),
    "records_only": (0.0, 0.1, 0.0),
    "mostly_seeds": (0.01, 0.02, 0.02),
}


def differences(random, seeds, records, of_seeds, of_records, of_both):
    """Return heavy-tailed differences around 0 of every record at every seed, and the tokens of the records."""
    tails = [random.standard_t(4, size) / np.sqrt(2) for size in (records, (seeds, records))]
    drawn = of_seeds * random.standard_normal((seeds, 1)) + of_records * tails[0] + of_both * tails[1]
    return drawn, random.integers(5, 49, records).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("records", [64, 192])
@pytest.mark.parametrize("seeds", [3, 10])
def test_coverage(monkeypatch, seeds, records, parts):
    monkeypatch.setattr(record_intervals, "RESAMPLES", 999)
    random, rounds, held, by_seeds = np.random.default_rng([seeds, records]), 400, 0, 0
    for turn in range(rounds):
        drawn, tokens = differences(random, seeds, records, *parts)
        low, high = interval(drawn, tokens, turn)
        held += low <= 0 <= high
        alone = paired(drawn @ tokens / tokens.sum())
        by_seeds += alone.low <= 0 <= alone.high
    assert held >= 0.9 * rounds, f"{held} of {rounds}"
    if parts in (PARTS["all"], PARTS["records_only"]):  # why there is a second interval
        assert by_seeds <= 0.8 * rounds


def test_without_differences_between_records_it_is_the_interval_over_seeds():
    by_seed = np.array([-0.08, -0.083, -0.079, -0.085, -0.081])
    tokens = np.array([5.0, 20.0, 40.0, 11.0])
    low, high = interval(np.repeat(by_seed[:, None], 4, axis=1), tokens)
    alone = paired(by_seed)
    assert (low, high) == pytest.approx((alone.low, alone.high), abs=4e-4)
    assert interval(np.repeat(by_seed[:, None], 4, axis=1), tokens) == (low, high), "the same every time"


def test_a_token_counts_alike_in_every_record():
    random = np.random.default_rng(0)
    drawn, tokens = differences(random, 5, 200, 0.003, 0.1, 0.05)
    low, high = interval(drawn, tokens)
    mean = (drawn @ tokens / tokens.sum()).mean()
    assert low < mean < high and abs((low + high) / 2 - mean) < 0.1 * (high - low)
    error = np.sqrt(np.average((drawn.mean(0) - mean) ** 2, weights=tokens**2) * (tokens**2).sum()) / tokens.sum()
    assert 1.9 * error < (high - low) / 2 < 2.6 * error, "the records' part, by the formula of a ratio, and the seeds'"


def test_what_has_no_records_has_no_interval():
    losses = {"tokens": [3.0, 4.0], "end": [1.0, 2.0], "best": [1.0, 2.0]}
    run = SimpleNamespace(record_losses=losses)
    better = SimpleNamespace(record_losses={**losses, "end": [0.9, 1.9]})
    assert over_records([(better, run)] * 3, "end") == pytest.approx((-0.1, -0.1))
    assert over_records([(better, run)] * 2, "end") is None, "two seeds"
    assert over_records([], "end") is None
    assert over_records([(better, SimpleNamespace(record_losses=None))] * 3, "end") is None
    other = SimpleNamespace(record_losses={**losses, "tokens": [4.0, 3.0]})
    assert over_records([(better, run), (better, run), (better, other)], "end") is None, "other records"
    early = SimpleNamespace(record_losses={"tokens": [3.0, 4.0], "end": [1.0, 2.0]})
    assert over_records([(better, early)] * 3, "best") is None
