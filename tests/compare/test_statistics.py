"""Paired statistics keep their error rate, and find what is there."""

import numpy as np
import pytest
from scipy import stats

from neft_zoo.compare.formats import interval_text
from neft_zoo.compare.statistics import holm, paired
from neft_zoo.compare.tables import interval_cell
from neft_zoo.compare.verdicts import judge

DRAWS = {
    "normal": lambda random, size: random.normal(4.6, 0.02, size),
    "heavy": lambda random, size: 4.6 + 0.02 * random.standard_t(3, size),
    "skewed": lambda random, size: random.lognormal(0, 1, size),
}


def claims(random, draw, seeds, rows=4):
    """Return whether rows of one distribution are called different in the end or in the best loss, which go along."""
    end = draw(random, (rows + 1, seeds))
    best = 0.9 * end + 0.1 * draw(random, (rows + 1, seeds))
    found = [paired(metric[row] - metric[0]) for metric in (end, best) for row in range(1, rows + 1)]
    return any(verdict.word in ("lower", "higher") for verdict in judge(found, 0.0))


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("seeds", [3, 5, 10, 24])
def test_nothing_is_claimed_where_nothing_is(kind, seeds):
    """1,000 comparisons of one distribution with itself under five names; a claim anywhere counts."""
    random = np.random.default_rng(seeds)
    wrong = sum(claims(random, DRAWS[kind], seeds) for _ in range(1000))
    assert wrong <= 50, f"{wrong} of 1,000"


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_one_row_in_two_metrics(seeds):
    random = np.random.default_rng(100 + seeds)
    assert sum(claims(random, DRAWS["normal"], seeds, rows=1) for _ in range(1000)) <= 50


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("seeds", [3, 19, 20, 40])
def test_a_verdict_is_that_of_the_interval_beside_it(kind, seeds):
    """At any number of seeds, also of heavy tails, for a question of one row."""
    random = np.random.default_rng(seeds)
    for margin in (0.0, 0.01, 0.1, 1.0):
        for _ in range(50):
            each = paired(DRAWS[kind](random, seeds) - DRAWS[kind](random, seeds))
            inside, apart = -margin < each.low and each.high < margin, not each.low <= 0 <= each.high
            shown = "practically the same" if inside else "undecided" if not apart else None
            word = judge([each], margin)[0].word
            assert word == (shown or ("lower" if each.mean < 0 else "higher")), (each, margin)


def test_small_samples_match_scipy_and_find_the_effects_of_noise():
    none, noisy = np.array([4.628, 4.637, 4.649]), np.array([4.547, 4.556, 4.569])
    found = paired(noisy - none)
    assert found.p == pytest.approx(stats.ttest_rel(noisy, none).pvalue)
    mean, error = (noisy - none).mean(), (noisy - none).std(ddof=1) / np.sqrt(3)
    assert (found.low, found.high) == pytest.approx((mean - 4.302653 * error, mean + 4.302653 * error), rel=1e-5)
    assert [judge([found], 0.01, better)[0].word for better in ("lower", "higher", None)] == [
        "better",
        "worse",
        "lower",
    ]


def test_the_bootstrap_would_miss_at_three_seeds():
    """The reason for the t distribution."""
    random = np.random.default_rng(0)
    values = random.normal(size=(300, 3))
    means = np.sort(values[:, np.array(np.meshgrid(*[range(3)] * 3)).reshape(3, -1).T].mean(-1))  # all 27 resamples
    missed = ((means[:, 0] > 0) | (means[:, -1] < 0)).mean()  # even the widest interval there is
    assert missed > 0.15


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None])
    assert holm([]) == [] and holm([None]) == [None] and holm([0.9, 0.8]) == [1.0, 1.0]


def test_too_few_or_equal_values():
    assert paired([]).mean is None
    one = paired([-0.1])
    assert (one.mean, one.low, one.p) == (-0.1, None, None)
    assert paired([0.0] * 5).p == 1.0
    equal = paired([-0.1] * 5)
    assert (equal.mean, equal.low, equal.high) == (pytest.approx(-0.1), None, None), "no width, yet undecided"
    assert interval_text(equal, 3) == "\N{MINUS SIGN}0.100 at every seed" and interval_cell(equal) == "-"
    assert interval_text(paired([-0.1]), 3) == "\N{MINUS SIGN}0.100, one seed"
    assert paired([0.0] * 3).low == 0.0, "the same in every run"
    assert paired([-0.1] * 3).p == 0.25 and paired([-0.1] * 10).p < 0.002, "equal differences: sign flips"
