"""The best plain run of any length, which noise must beat, since stopping earlier is cheaper than any noise."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from neft_zoo.compare.experiment import CHOSEN_BY, Experiment, Row
from neft_zoo.compare.metrics import HALVES, metric
from neft_zoo.compare.statistics import Difference, paired
from neft_zoo.compare.verdicts import Verdict, judge


@dataclass(frozen=True)
class Reference:
    """The plain run whose length has the lowest loss on one half of the test records, measured on the other half.

    Attributes:
        row: the row of that length.
        mean: its test loss at the end of training, over its seeds, in nats per token.
        rows: every other strategy and control, with its difference from the reference and the verdict.
        halves: whether selection and measurement use different test records. Results from before 0.2 have one loss for
            both, which is then optimistic; while any run is one of these, all rows use that loss.
    """

    row: Row
    mean: float
    rows: list[tuple[Row, Difference, Verdict]]
    halves: bool


def find_reference(experiment: Experiment) -> Reference | None:
    """Return the best plain run of any length, or None if plain training was run at one length only."""
    plain = [row for row in experiment.rows if row is experiment.none or row.is_other_length]
    plain = [row for row in plain if row.values(CHOSEN_BY, "end")]
    if len(plain) < 2:
        return None
    whole = [(row, row.values(CHOSEN_BY, "end").keys()) for row in experiment.rows]
    halves = all(row.values(half, "end").keys() == seeds for row, seeds in whole for half in HALVES)
    choosing, reporting = HALVES if halves else (CHOSEN_BY, CHOSEN_BY)
    # Lengths are compared at common seeds: the loss varies more between seeds than between lengths.
    seeds = set.intersection(*(set(row.values(choosing, "end")) for row in plain))
    if not seeds:
        return None
    best = min(plain, key=lambda row: fmean(row.values(choosing, "end")[seed] for seed in seeds))
    theirs = best.values(reporting, "end")
    others = [row for row in experiment.rows if row not in plain]
    differences = []
    for row in others:
        ours = row.values(reporting, "end")
        differences.append(paired([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]))
    rows = []
    for question in dict.fromkeys(row.question for row in others):
        alike = [(row, each) for row, each in zip(others, differences, strict=True) if row.question == question]
        verdicts = judge([each for _, each in alike], experiment.margin(CHOSEN_BY), metric(CHOSEN_BY).better)
        rows += [(row, each, verdict) for (row, each), verdict in zip(alike, verdicts, strict=True)]
    return Reference(best, fmean(theirs.values()), rows, halves)
