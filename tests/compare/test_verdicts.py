"""The one verdict: its four words keep their rates, for nulls of both kinds and for known effects."""

import math
from pathlib import Path

import numpy as np
import pytest

from neft_zoo.compare.measurement import Measurement
from neft_zoo.compare.records import RecipeId, RunRecord
from neft_zoo.compare.statistics import paired
from neft_zoo.compare.summary import summarize
from neft_zoo.compare.verdicts import POWER, equivalence_p, is_identical, judge, one_test, visible_effect

MARGIN, SPREAD = 0.01, 0.01
ROUNDS, FEWER = 600, 150  # fewer where every interval is a bootstrap
SEEDS = [3, 5, 10, pytest.param(20, marks=pytest.mark.slow)]
IDENTICAL = None  # the null of a row that repeats its baseline bit for bit


def draw(random, effect, seeds, spread):
    """Return the paired differences of a row with a true effect."""
    return paired(np.zeros(seeds) if effect is IDENTICAL else effect + spread * random.standard_normal(seeds))


def asked(effects, seeds, spread=SPREAD):
    """Yield the words of many questions, whose rows have these true effects."""
    random = np.random.default_rng([seeds, int(1e6 * spread), *(int(1e6 * abs(each or 0)) for each in effects)])
    for _ in range(ROUNDS if seeds < 20 else FEWER):
        yield [v.word for v in judge([draw(random, e, seeds, spread) for e in effects], MARGIN, "lower")]


def rate(wanted, effects, seeds, spread=SPREAD):
    """Return how often any row of a question has one of the verdicts."""
    return np.mean([bool({*words} & {*wanted}) for words in asked(effects, seeds, spread)])


def limit(stated, seeds):
    """Return the highest rate that one test in two hundred would count if the stated one is true."""
    return stated + 2.6 * math.sqrt(stated * (1 - stated) / (ROUNDS if seeds < 20 else FEWER))


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("effects", [[0.0], [0.0] * 8, [0.0, IDENTICAL] * 4], ids=["one", "eight", "half_identical"])
def test_equal_means_are_called_different_in_at_most_one_of_twenty_questions(seeds, effects):
    assert rate(["better", "worse"], effects, seeds) <= limit(0.05, seeds)


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("effect", [-MARGIN, MARGIN])
def test_effects_of_the_margins_size_are_called_the_same_in_at_most_one_of_forty(seeds, rows, effect):
    assert rate(["practically the same"], [effect] * rows, seeds, spread=0.003) <= limit(0.025, seeds)


@pytest.mark.parametrize("seeds", SEEDS)
def test_identical_rows_are_called_nothing_else(seeds):
    for words in asked([IDENTICAL] * 3, seeds):
        assert words == ["identical"] * 3


@pytest.mark.parametrize("seeds", SEEDS)
def test_of_nulls_margins_and_effects_together_one_question_in_thirteen_has_a_wrong_word(seeds):
    """5 % for a difference where there is none or the other one, and 2.5 % for equivalence where there is none."""
    effects = [0.0, IDENTICAL, MARGIN, -MARGIN, 0.03, -0.03]
    right = [
        {"undecided", "practically the same"},
        {"identical"},
        {"undecided", "worse"},
        {"undecided", "better"},
        {"undecided", "worse"},
        {"undecided", "better"},
    ]
    wrong = [any(word not in ok for word, ok in zip(words, right, strict=True)) for words in asked(effects, seeds)]
    assert np.mean(wrong) <= limit(0.075, seeds)


def test_an_effect_is_never_called_its_opposite_and_seen_where_it_is_large():
    assert rate(["worse"], [-0.02], 5) <= 0.01
    assert rate(["better"], [-0.05], 5) >= 0.98
    assert rate(["better"], [-0.05] * 8, 5) >= 0.98
    assert rate(["practically the same"], [0.0], 10, spread=0.003) >= 0.98


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("others", [0, 7])
def test_the_effect_that_undecided_names_is_seen_four_times_in_five(seeds, others):
    """For the true spread; among others without effect, the correction makes it as hard as it says."""
    unit = paired(np.array([1.0, -1.0] + [0.0] * (seeds - 2)) * math.sqrt((seeds - 1) / 2))  # of spread 1
    spread = 5 * SPREAD  # so that the effect is far above the margin
    shown = visible_effect(unit, 1 + others) * spread
    effects = [-shown] + [0.0] * others
    seen = np.mean([words[0] == "better" for words in asked(effects, seeds, spread)])
    assert POWER - 0.05 <= seen <= POWER + 0.05  # three deviations


def test_no_effect_is_named_where_nothing_says_how_much_differences_vary():
    assert visible_effect(paired([-0.1, -0.2])) is None, "two differences"
    assert visible_effect(paired([-0.1] * 4)) is None, "equal ones"
    assert judge([paired([-0.1] * 4)], MARGIN, "lower")[0].text() == "undecided"


def test_rows_that_repeat_the_baseline_are_no_test_and_cost_the_others_nothing():
    random = np.random.default_rng(0)
    real = paired(-0.03 + 0.01 * random.standard_normal(5))
    alone = judge([real], MARGIN, "lower")[0]
    verdicts = judge([paired([0.0] * 5)] * 7 + [real], MARGIN, "lower")
    assert {verdict.word for verdict in verdicts[:7]} == {"identical"} and verdicts[7] == alone
    assert verdicts[0].text() == "identical: not a test" and is_identical(paired([0.0]))
    assert not is_identical(paired([])) and not is_identical(paired([0.0, 1e-12]))


def test_a_best_evaluation_that_is_the_last_one_is_no_second_test():
    random = np.random.default_rng(0)
    ends = [draw(random, 0.008, 5, 0.003) for _ in range(4)]
    again = [paired(list(each.values)) for each in ends]
    tests = [one_test(end, best) for end, best in zip(ends, again, strict=True)]
    assert all(end is best for end, best in tests)
    once = judge(ends, MARGIN, "lower")
    assert judge([each for test in tests for each in test], MARGIN, "lower") == [each for each in once for _ in "12"]
    assert judge([*ends, *again], MARGIN, "lower")[0].p == pytest.approx(min(1, 2 * once[0].p)), "of other runs"
    other = draw(random, 0.008, 5, 0.003)
    assert one_test(ends[0], other, None) == [ends[0], other, None]


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
    assert [verdict.word for verdict in verdicts] == ["not measured", "no common seed", "one seed", "undecided"]
    assert verdicts[3].text(2) == "undecided" and verdicts[2].p is None
    text = judge([paired([-0.1, -0.2, 0.1])], MARGIN, "lower")[0].text(2)
    assert text == "undecided (\N{PLUS-MINUS SIGN}0.50 would have been seen)"
    assert equivalence_p(paired([-0.001] * 3), MARGIN) == 0.25, "equal differences: sign flips"


def run_of(name, alpha, seed, losses):
    """Return a run of which the test losses are known."""
    noise = {"name": name, **({"alpha": alpha} if alpha else {})}
    history = [Measurement(step, float(step), {"test_loss": loss}) for step, loss in enumerate(losses, start=1)]
    return RunRecord(
        key=f"{noise}{seed}",
        recipe=RecipeId("r", "h"),
        noise=noise,
        version=1,
        control="",
        overrides={},
        row=str(noise),
        seed=seed,
        passes=1,
        share=1.0,
        status="ok",
        config={},
        history=history,
        versions={},
        end=history[-1],
        best=min(history, key=lambda point: point["test_loss"]),
    )


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_words_of_whole_comparisons_keep_their_rates(seeds):
    """From records to verdicts: rows of two questions, without effect, identical and with one, at end and best."""
    random, rounds = np.random.default_rng(seeds), 300
    wrong = {"null": 0, "opposite": 0, "identical": 0}
    for _ in range(rounds):
        runs = []
        for seed in range(seeds):
            plain = 4.0 + 0.02 * random.standard_normal(2)
            # Two strategies and three values of one, all without effect; one repeats the baseline, and one helps.
            rows = [("neft_gaussian", 5.0), ("neft_laplace", 5.0), *(("neft_uniform", a) for a in (1.0, 10.0, 15.0))]
            noisy = {row: plain + 0.01 * random.standard_normal(2) for row in rows}
            noisy |= {("none", 0.0): plain, ("neft_sphere", 5.0): plain}
            noisy["symnoise", 5.0] = plain - 0.05 + 0.01 * random.standard_normal(2)
            runs += [run_of(*row, seed, losses) for row, losses in noisy.items()]
        experiment = summarize({Path(f"{place}.json"): run for place, run in enumerate(runs)})
        words = {}
        for row in experiment.rows[1:]:
            name = str(row.arguments["name"])
            words.setdefault(name, set()).update(cell.verdict.word for cell in row.cells.values() if cell.verdict)
        questions = [words["neft_gaussian"] | words["neft_laplace"], words["neft_uniform"]]
        wrong["null"] += sum(bool(each & {"better", "worse"}) for each in questions)
        wrong["opposite"] += "worse" in words["symnoise"]
        wrong["identical"] += words["neft_sphere"] != {"identical"}
    assert wrong["identical"] == 0 and wrong["opposite"] <= limit(0.025, 5) * rounds
    assert wrong["null"] <= limit(0.05, 5) * 2 * rounds
