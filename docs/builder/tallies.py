"""What all strategies did at their defaults, counted by rule: for the log and the guide."""

from __future__ import annotations

from neft_zoo import registry
from neft_zoo.compare.experiment import POINTS, STEPS, Experiment, Row
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.records import When

FEW = 8  # names are listed up to so many
SEEDS = 3  # fewer pairs say nothing
BELOW = 0.5 * 10.0 ** -metric("test_loss").digits  # what the tables show as no difference at all


def defaults(experiment: Experiment) -> list[Row]:
    """Return the rows of strategies at their default arguments that have enough seeds."""
    rows = [experiment.find(name) for name in registry.builtin_names() if name != "none"]
    enough = [row for row in rows if row and len(row.values("test_loss", "end")) >= SEEDS]
    return [row for row in enough if row.cells["test_loss", "end"].difference]


def tally(experiments: list[Experiment]) -> str:
    """Return how many strategies ended with a lower or higher test loss than `none`, and where they were best."""
    lines = []
    for experiment in (each for each in experiments if each.budget == STEPS):
        if not (rows := defaults(experiment)):
            continue
        sentences = []
        for point, place in POINTS.items():
            better, worse = (
                [row for row in rows if row.cells["test_loss", point].verdict.endswith(side)]
                for side in ("better", "worse")
            )
            rest = len(rows) - len(better) - len(worse)
            sentences.append(f"{place} {_names(better)} lower, {_names(worse)} higher, {rest} not told apart from it")
        lines.append(f"* **{experiment.name}**, {len(rows)} strategies against `none`: {'; '.join(sentences)}.")
    return "\n".join(lines)


def unchanged(experiments: list[Experiment]) -> str:
    """Return the strategies whose defaults change the test loss at no seed by as much as the tables show."""
    lines, run = [], [each for each in experiments if each.budget == STEPS and defaults(each)]
    for experiment in run:
        still = [f"`{row.entry}`" for row in defaults(experiment) if all(_same(row, point) for point in POINTS)]
        lines.append(f"* **{experiment.name}**: {', '.join(still) or 'not one'}.")
    return "\n".join(lines)


def _same(row: Row, point: When) -> bool:
    each = row.cells["test_loss", point].difference
    return each is not None and all(abs(value) < BELOW for value in each.values)


def _names(rows: list[Row]) -> str:
    if not 0 < len(rows) <= FEW:
        return str(len(rows))
    return f"{len(rows)} ({', '.join(f'`{row.entry}`' for row in rows)})"
