"""The best plain run of any length, which noise must beat, since stopping earlier is cheaper than any noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from neft_zoo.compare.experiment import CHOSEN_BY, Experiment, Row
from neft_zoo.compare.metrics import HALVES, metric
from neft_zoo.compare.records import When
from neft_zoo.compare.statistics import Difference, paired
from neft_zoo.compare.verdicts import Verdict, judge

ENOUGH = 3  # shared seeds that no further row may reduce


@dataclass(frozen=True)
class Reference:
    """The plain run whose length has the lowest loss on one half of the test records, measured on the other half.

    Attributes:
        row: the row of that length.
        mean: its test loss at the end of training, over its seeds, in nats per token.
        rows: every other strategy and control, with its difference from the reference and the verdict.
        halves: whether selection and measurement use different test records. Results from before 0.2 have one loss for
            both, which is then optimistic; while any run is one of these, all rows use that loss.
        seeds: number of seeds on which the lengths were compared.
        none: number of seeds of `none`.
        omitted: plain rows of other lengths that have too few seeds to be among these.
    """

    row: Row
    mean: float
    rows: list[tuple[Row, Difference, Verdict]]
    halves: bool
    seeds: int
    none: int
    omitted: list[Row]


def find_reference(experiment: Experiment) -> Reference | None:
    """Return the best plain run of any length, or None if only one length was run at enough seeds."""
    whole = [(row, row.values(CHOSEN_BY, "end").keys()) for row in experiment.rows]
    halves = all(row.values(half, "end").keys() == seeds for row, seeds in whole for half in HALVES)
    choosing, reporting = HALVES if halves else (CHOSEN_BY, CHOSEN_BY)
    lengths = [row for row in experiment.rows if row.is_other_length and row.records]
    lengths.sort(key=lambda row: -len(row.values(choosing, "end")))
    # Lengths are compared at common seeds: the loss varies more between seeds than between lengths.
    plain, seeds = comparable([experiment.none, *lengths], choosing, "end")
    if len(plain) < 2:
        return None
    best = min(plain, key=lambda row: fmean(row.values(choosing, "end")[seed] for seed in seeds))
    others = [row for row in experiment.rows if row is not experiment.none and not row.is_other_length]
    differences = [paired(row.minus(best, reporting, "end")) for row in others]
    rows = []
    for question in dict.fromkeys(row.question for row in others):
        alike = [(row, each) for row, each in zip(others, differences, strict=True) if row.question == question]
        verdicts = judge([each for _, each in alike], experiment.margin(CHOSEN_BY), metric(CHOSEN_BY).better)
        rows += [(row, each, verdict) for (row, each), verdict in zip(alike, verdicts, strict=True)]
    return Reference(
        row=best,
        mean=fmean(best.values(reporting, "end").values()),
        rows=rows,
        halves=halves,
        seeds=len(seeds),
        none=len(experiment.none.values(choosing, "end")),
        omitted=[row for row in lengths if row not in plain],
    )


def comparable(rows: Iterable[Row], name: str, when: When) -> tuple[list[Row], set[int]]:
    """Return the rows that can be compared at common seeds, and these seeds.

    A row that lacks too many seeds of the rows before it is omitted, so that it does not reduce their seeds.

    Args:
        rows: the most important one first.
        name: of the metric that they are compared in.
        when: the end, or each run's best evaluation.
    """
    first, *others = rows
    kept, shared = [first], set(first.values(name, when))
    enough = min(ENOUGH, len(shared))
    for row in others:
        if len(common := shared & row.values(name, when).keys()) >= enough > 0:
            kept, shared = [*kept, row], common
    return kept, shared
