"""Verdicts on all strategies at their defaults, counted by rule, for the log and the guide."""

from __future__ import annotations

from neft_zoo import registry
from neft_zoo.compare.experiment import POINTS, STEPS, Experiment, Row
from neft_zoo.compare.records import When

from .tables import could_have_been_seen
from .words import same_data, title

FEW = 8  # maximum number of listed names
SEEDS = 3  # fewer pairs are meaningless


def defaults(experiment: Experiment) -> list[Row]:
    """Return the rows of strategies at their default arguments that have enough seeds."""
    enough = [row for row in _at_defaults(experiment) if len(row.values("test_loss", "end")) >= SEEDS]
    return [row for row in enough if row.cells["test_loss", "end"].difference]


def _at_defaults(experiment: Experiment) -> list[Row]:
    """Return the rows of strategies at their default arguments."""
    rows = [experiment.find(name) for name in registry.builtin_names() if name != "none"]
    return [row for row in rows if row is not None]


def tally(experiments: list[Experiment]) -> str:
    """Return how many strategies have a lower or higher test loss than `none`, at the end and at their best."""
    lines = []
    for experiment in (each for each in experiments if each.budget == STEPS):
        if not (rows := defaults(experiment)):
            continue
        places = "; ".join(f"{place} {_counted(rows, point)}" for point, place in POINTS.items())
        count = f"{len(rows)} strateg{'y' if len(rows) == 1 else 'ies'}"
        few = ", ".join(f"`{row.entry}`" for row in _at_defaults(experiment) if row not in rows)
        few = f" Not counted, with fewer than {SEEDS} seeds: {few}." if few else ""
        failed = ", ".join(f"`{row.entry}`{row.failures}" for row in rows if row.failed)
        without = f" Without failed runs: {failed}." if failed else ""
        lines.append(f"* **{title(experiment)}**, {count} against `none`: {places}.{without}{few}")
    return "\n".join([*lines, *([f"\n{shared}"] if lines and (shared := same_data(experiments)) else [])])


def _counted(rows: list[Row], point: When) -> str:
    """Return how many rows have each verdict, and the effects that undecided ones would have shown."""
    by_word: dict[str, list[Row]] = {word: [] for word in ("better", "worse", "practically the same", "undecided")}
    for row in rows:
        verdict = row.cells["test_loss", point].verdict
        by_word.setdefault(verdict.word if verdict else "not measured", []).append(row)
    return ", ".join(
        f"{_names(alike)} {word}{could_have_been_seen([row.cells['test_loss', point].verdict for row in alike], word)}"
        for word, alike in by_word.items()
    )


def unchanged(experiments: list[Experiment]) -> str:
    """Return the strategies whose defaults leave the test loss practically the same, by verdict, at both points."""
    lines, run = [], [each for each in experiments if each.budget == STEPS and defaults(each)]
    for experiment in run:
        still = [f"`{row.entry}`" for row in defaults(experiment) if _is_unchanged(row)]
        lines.append(f"* **{title(experiment)}**: {', '.join(still) or 'none of them'}.")
    return "\n".join(lines)


def _is_unchanged(row: Row) -> bool:
    """Return whether the test loss is practically the same at both points, and not equal bit for bit at both."""
    verdicts = [row.cells["test_loss", point].verdict for point in POINTS]
    words = {verdict.word if verdict else "" for verdict in verdicts}
    return "practically the same" in words and words <= {"practically the same", "identical"}


def _names(rows: list[Row]) -> str:
    if not 0 < len(rows) <= FEW:
        return str(len(rows))
    return f"{len(rows)} ({', '.join(f'`{row.entry}`' for row in rows)})"
