"""The one verdict: its four words keep their rates, for nulls of both kinds and for known effects."""

import numpy as np
import pytest

from neft_zoo.compare.statistics import paired
from neft_zoo.compare.verdicts import equivalence_p, is_identical, judge, visible_effect

MARGIN, SPREAD = 0.01, 0.01
ROUNDS = 600


def words(random, effect, seeds, rows=1, spread=SPREAD):
    """Return the verdicts of one question on rows with the same true effect."""
    draws = [paired(effect + spread * random.standard_normal(seeds)) for _ in range(rows)]
    return [verdict.word for verdict in judge(draws, MARGIN, "lower")]


def rate(wanted, effect, seeds, rows=1, spread=SPREAD):
    """Return how often any row of a question has one of the verdicts."""
    random = np.random.default_rng([seeds, rows, int(1e6 * abs(effect)), int(1e6 * spread)])
    return np.mean([bool({*words(random, effect, seeds, rows, spread)} & {*wanted}) for _ in range(ROUNDS)])


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("rows", [1, 8])
def test_equal_means_are_called_different_in_at_most_one_of_twenty_questions(seeds, rows):
    assert rate(["better", "worse"], 0.0, seeds, rows) <= 0.07  # 600 questions: 0.05 and two and a half deviations


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("effect", [-MARGIN, MARGIN])
def test_effects_of_the_margins_size_are_called_the_same_in_at_most_one_of_forty(seeds, rows, effect):
    assert rate(["practically the same"], effect, seeds, rows, spread=0.003) <= 0.045


def test_an_effect_is_never_called_its_opposite_and_seen_where_it_is_large():
    assert rate(["worse"], -0.02, 5) <= 0.01
    assert rate(["better"], -0.05, 5) >= 0.98
    assert rate(["better"], -0.05, 5, rows=8) >= 0.98
    assert rate(["practically the same"], 0.0, 10, spread=0.003) >= 0.98


def test_the_effect_that_undecided_names_is_seen_four_times_in_five():
    random = np.random.default_rng(3)
    for seeds in (5, 10):
        shown = [visible_effect(paired(SPREAD * random.standard_normal(seeds))) for _ in range(ROUNDS)]
        # Close to 0.8: a t distribution that is shifted is a little wider than one that is not.
        assert 0.72 <= rate(["better"], -float(np.mean(shown)), seeds) <= 0.9


def test_rows_that_repeat_the_baseline_are_no_test_and_cost_the_others_nothing():
    random = np.random.default_rng(0)
    real = paired(-0.03 + 0.01 * random.standard_normal(5))
    alone = judge([real], MARGIN, "lower")[0]
    verdicts = judge([paired([0.0] * 5)] * 7 + [real], MARGIN, "lower")
    assert {verdict.word for verdict in verdicts[:7]} == {"identical"} and verdicts[7] == alone
    assert verdicts[0].text() == "identical: not a test" and is_identical(paired([0.0]))
    assert not is_identical(paired([])) and not is_identical(paired([0.0, 1e-12]))


def test_a_certain_difference_below_the_margin_is_practically_the_same():
    tiny = paired([-0.0004, -0.0005, -0.0003, -0.0004, -0.0004])
    assert tiny.p < 0.001
    assert judge([tiny], MARGIN, "lower")[0].word == "practically the same"
    assert judge([tiny], 0.0, "lower")[0].word == "better", "no margin, no equivalence"


def test_a_large_effect_is_shown_however_many_other_questions_a_page_asks():
    """+0.394 [+0.313, +0.474] was once called 'no difference shown', corrected over all rows of a page."""
    values = 0.394 + 0.0324 * np.sqrt(3) * np.array([-1.0, 0.0, 1.0])
    assert judge([paired(values)], MARGIN, "lower")[0].word == "worse"
    assert judge([paired(values)], MARGIN)[0].word == "higher", "where neither direction is good"


def test_the_same_where_the_interval_lies_within_the_margin():
    random = np.random.default_rng(1)
    for _ in range(200):
        each = paired(0.004 * random.standard_normal() + 0.006 * random.standard_normal(5))
        within = -MARGIN <= each.low and each.high <= MARGIN
        assert (equivalence_p(each, MARGIN) <= 0.05) == within


def test_what_cannot_be_judged():
    verdicts = judge([None, paired([]), paired([-0.1]), paired([-0.1, -0.2])], MARGIN, "lower")
    assert [verdict.word for verdict in verdicts] == ["not measured", "not measured", "one seed", "undecided"]
    assert verdicts[3].text(2).startswith("undecided (\N{PLUS-MINUS SIGN}") and verdicts[2].p is None
    assert equivalence_p(paired([-0.001] * 3), MARGIN) == 0.25, "equal differences: sign flips"
