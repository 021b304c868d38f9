"""What all strategies did at their defaults, counted by rule: for the log and the guide."""

from __future__ import annotations

from neft_zoo import registry
from neft_zoo.compare.experiment import POINTS, STEPS, Experiment, Row
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.records import When

from .words import title

FEW = 8  # names are listed up to so many
SEEDS = 3  # fewer pairs say nothing
BELOW = 0.5 * 10.0 ** -metric("test_loss").digits  # what the tables show as no difference at all


def defaults(experiment: Experiment) -> list[Row]:
    """Return the rows of strategies at their default arguments that have enough seeds."""
    rows = [experiment.find(name) for name in registry.builtin_names() if name != "none"]
    enough = [row for row in rows if row and len(row.values("test_loss", "end")) >= SEEDS]
    return [row for row in enough if row.cells["test_loss", "end"].difference]


def tally(experiments: list[Experiment]) -> str:
    """Return how many strategies have a lower or higher test loss than `none` at the end, and at their best."""
    lines = []
    for experiment in (each for each in experiments if each.budget == STEPS):
        if not (rows := defaults(experiment)):
            continue
        places = "; ".join(f"{place} {_counted(rows, point)}" for point, place in POINTS.items())
        lines.append(f"* **{title(experiment)}**, {len(rows)} strategies against `none`: {places}.")
    return "\n".join(lines)


def _counted(rows: list[Row], point: When) -> str:
    """Return how many rows have each verdict."""
    by_word: dict[str, list[Row]] = {word: [] for word in ("better", "worse", "practically the same", "undecided")}
    for row in rows:
        verdict = row.cells["test_loss", point].verdict
        by_word.setdefault(verdict.word if verdict else "not measured", []).append(row)
    return ", ".join(f"{_names(alike)} {word}" for word, alike in by_word.items())


def unchanged(experiments: list[Experiment]) -> str:
    """Return the strategies whose defaults change the test loss at no seed by as much as the tables show."""
    lines, run = [], [each for each in experiments if each.budget == STEPS and defaults(each)]
    for experiment in run:
        still = [f"`{row.entry}`" for row in defaults(experiment) if all(_same(row, point) for point in POINTS)]
        lines.append(f"* **{title(experiment)}**: {', '.join(still) or 'not one'}.")
    return "\n".join(lines)


def _same(row: Row, point: When) -> bool:
    each = row.cells["test_loss", point].difference
    return each is not None and all(abs(value) < BELOW for value in each.values)


def _names(rows: list[Row]) -> str:
    if not 0 < len(rows) <= FEW:
        return str(len(rows))
    return f"{len(rows)} ({', '.join(f'`{row.entry}`' for row in rows)})"
