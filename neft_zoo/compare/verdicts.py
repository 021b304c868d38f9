"""Verdicts on paired differences: better, worse, practically the same, or undecided.

A verdict answers one question, such as "which strategy at its defaults changes the test loss?". It combines two tests
of every row, each corrected by Holm's method over the rows of that question only:

* *better* or *worse*: the mean difference is not 0;
* *practically the same*: the difference is smaller than the margin in both directions (two one-sided t tests; for a
  question of one row, a 95 % interval within the margin). If both hold, this one is reported: a difference that is
  certain but too small to matter is called the same.

If neither test succeeds, the verdict is *undecided*, with the effect size that these seeds would have detected with a
power of 0.8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import special

from neft_zoo.compare.metrics import Better
from neft_zoo.compare.statistics import LEVEL, Difference, holm

Word = Literal[
    "better",
    "worse",
    "lower",
    "higher",
    "practically the same",
    "undecided",
    "identical",
    "one seed",
    "no baseline",
    "not measured",
    "no common seed",
]
POWER = 0.8  # power for the effect size in undecided verdicts
FEWEST = 3  # pairs; two differences are too few to estimate their variance


@dataclass(frozen=True)
class Verdict:
    """A verdict on a difference.

    Attributes:
        word: better or worse (lower or higher if the metric has no better direction), or why there is no verdict.
        p: corrected p value of the hypothesis of no difference; None without two pairs.
        visible: smallest difference that would have been detected with a power of 0.8, in the metric's unit; None if
            the variance of the differences is unknown.
    """

    word: Word
    p: float | None = None
    visible: float | None = None

    def text(self, digits: int = 3) -> str:
        """Return the verdict in words."""
        if self.word == "identical":
            return "identical: not a test"
        if self.word == "no baseline":
            return "no plain run of as many steps: not a test"
        if self.word == "one seed":
            return "undecided: one seed"
        if self.word == "undecided" and self.visible is not None:
            return f"undecided (\N{PLUS-MINUS SIGN}{self.visible:.{digits}f} would have been seen)"
        return self.word


def judge(question: Sequence[Difference | None], margin: float, better: Better | None = None) -> list[Verdict]:
    """Return the verdict on every difference of one question.

    Args:
        question: the paired differences of its rows in one metric; None is skipped and does not count, and what is
            there several times counts once.
        margin: differences up to this size have no practical meaning; 0 if there is no such size.
        better: the better direction; None if there is none.
    """
    # Rows identical to the baseline test nothing, and must not count in the correction for the others.
    tested = {id(each): each for each in question if each is not None and not is_identical(each)}
    differs = dict(zip(tested, holm([each.p for each in tested.values()]), strict=True))
    same = dict(zip(tested, holm([equivalence_p(each, margin) for each in tested.values()]), strict=True))
    count = sum(each.p is not None for each in tested.values())
    return [_verdict(each, differs.get(id(each)), same.get(id(each)), better, count) for each in question]


def one_test(*points: Difference | None) -> list[Difference | None]:
    """Return a row's differences at several points, with the same object for equal ones, to be counted once.

    They are equal if the best evaluation is the last one in every run.
    """
    found: dict[tuple[float, ...], Difference] = {}
    return [None if each is None else found.setdefault(each.values, each) for each in points]


def _verdict(
    difference: Difference | None, p: float | None, p_same: float | None, better: Better | None, count: int
) -> Verdict:
    if difference is None or difference.mean is None:
        return Verdict("not measured" if difference is None else "no common seed")
    if is_identical(difference):
        return Verdict("identical", 1.0 if len(difference.values) > 1 else None)
    if p is None:
        return Verdict("one seed")
    visible = visible_effect(difference, count)
    if p_same is not None and p_same <= LEVEL:
        return Verdict("practically the same", p, visible)
    if p > LEVEL:
        return Verdict("undecided", p, visible)
    direction: Better = "lower" if difference.mean < 0 else "higher"
    if better is None:
        return Verdict(direction, p, visible)
    return Verdict("better" if direction == better else "worse", p, visible)


def is_identical(difference: Difference) -> bool:
    """Return whether a row equals its baseline exactly at every seed, so that its options change nothing."""
    return bool(difference.values) and not any(difference.values) and not difference.is_of_other_runs


def equivalence_p(difference: Difference, margin: float) -> float | None:
    """Return the p value of the hypothesis that a difference is at least as large as the margin.

    It is twice the larger p value of two one-sided t tests, so it is below 5 % if the 95 % interval of Student's t
    lies within the margin. Return None with fewer than two pairs.
    """
    count = len(difference.values)
    if count < 2 or difference.mean is None:
        return None
    inside = margin - abs(difference.mean)
    if inside <= 0:
        return 1.0
    if _is_constant(difference):  # use sign flips, as t would be infinite
        return min(1.0, 2.0 ** (1 - count))
    return min(1.0, 2.0 * float(special.stdtr(count - 1, -inside / standard_error(difference))))


def visible_effect(difference: Difference, count: int = 1) -> float | None:
    """Return the difference that these seeds would have detected with a power of 0.8, among `count` rows.

    Return None with fewer than three pairs, or if all are equal, since their variance is then unknown.
    """
    seeds = len(difference.values)
    if seeds < FEWEST or _is_constant(difference):
        return None
    critical = special.stdtrit(seeds - 1, 1 - LEVEL / (2 * max(1, count)))
    return float(special.nctdtrinc(seeds - 1, 1 - POWER, critical)) * standard_error(difference)


def _is_constant(difference: Difference) -> bool:
    """Return whether all seeds have the same difference, up to rounding."""
    return standard_error(difference) <= 1e-12 * max(map(abs, difference.values))


def standard_error(difference: Difference) -> float:
    """Return the standard error of the mean difference, from at least two pairs."""
    values = difference.values
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
