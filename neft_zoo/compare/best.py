"""Comparing the best trial of a search with `none`, also trained shorter, at seeds that the search did not use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from neft_zoo import registry
from neft_zoo.compare import planning, results, runner
from neft_zoo.compare import search_space as space
from neft_zoo.compare.experiment import CHOSEN_BY, POINTS, Row
from neft_zoo.compare.formats import number
from neft_zoo.compare.labels import label
from neft_zoo.compare.measurement import Warned
from neft_zoo.compare.records import RunRecord
from neft_zoo.compare.reference import find_reference
from neft_zoo.compare.rows import read_lengths
from neft_zoo.compare.search import Search, spell
from neft_zoo.compare.statistics import Difference
from neft_zoo.compare.study import TrialState, trials
from neft_zoo.compare.summary import summarize
from neft_zoo.compare.verdicts import Verdict
from neft_zoo.compare.worker import Task
from neft_zoo.console import say
from neft_zoo.files import write_json
from neft_zoo.noise.schedules import check_count

BEST_PLAIN = "the best plain run"


class Compared(TypedDict):
    """The paired difference from a baseline in test loss, at the seeds at which both succeeded."""

    baseline: str
    seeds: list[int]
    difference: float | None
    low: float | None
    high: float | None
    verdict: str


class Best(TypedDict):
    """The content of `best.json`.

    A comparison has folder, seeds, a `Compared` with `none` per metric and point, and one with the best plain run of
    any length, at the end of training.
    """

    values: dict[str, object]
    noise: dict[str, object]
    options: dict[str, object]
    trial: int
    test_loss: float
    trials: dict[str, int]
    comparison: dict[str, object] | None


def confirm(search: Search, seeds: int) -> Best:
    """Compare the best trial with `none`, also trained shorter, at fresh seeds, and write `best.json`.

    Raises:
        NoiseError: if seeds is negative.
    """
    check_count("seeds", seeds)
    best = search.study.best_trial
    row = search.row(best.user_attrs["values"])
    assert best.value is not None, "the best trial has ended well"
    report = Best(
        values=best.user_attrs["values"],
        noise=row.noise,
        options=row.overrides,
        trial=best.number,
        test_loss=best.value,
        trials={state.name.lower(): len(trials(search.study, state)) for state in TrialState},
        comparison=None,
    )
    if seeds and row.noise["name"] != "none":
        plain = space.row_of(registry.make("none"), row.overrides)
        lengths = read_lengths(None, {**search.grid.config, **row.overrides})
        rows = [plain, *(replace(plain, length=length) for length in sorted(lengths)), row]
        grid = replace(search.grid, rows=rows, seeds=list(range(1, seeds + 1)))
        folder = search.folder / f"best-{row.key[:8]}"
        tasks = planning.tasks(grid, folder)
        todo, labels = planning.missing(tasks), label(task.record for task in tasks)
        say(f"comparing the best with none: {len(todo)} runs")

        def finished(task: Task, record: RunRecord, warned: list[Warned]) -> None:
            search.warned(warned, record.name)
            say(f"{labels[record.row]}, seed {record.seed}: {record.status}")

        runner.run(todo, 1, finished)
        compared = _compared({task.path: results.read(task.path) for task in tasks})
        report["comparison"] = {"folder": str(folder), "seeds": grid.seeds, **compared}
    write_json(search.folder / "best.json", report, 1)
    return report


def _compared(runs: dict[Path, RunRecord]) -> dict[str, Compared]:
    """Return the strategy's test loss compared with `none`, and with the best plain run of any length."""
    experiment = summarize(runs)
    (row,) = (row for row in experiment.rows if row.entry not in (None, "none"))
    compared = {}
    for when in POINTS:
        cell = row.cells.get((CHOSEN_BY, when))
        if cell is not None and cell.difference is not None:
            compared[f"{CHOSEN_BY} {when}"] = _of(row, experiment.none, cell.difference, cell.verdict)
    reference = find_reference(experiment)
    if reference is not None:
        ((_, difference, verdict),) = reference.rows
        compared[BEST_PLAIN] = _of(row, reference.row, difference, verdict)
    return compared


def _of(row: Row, other: Row, difference: Difference, verdict: Verdict | None) -> Compared:
    seeds = row.values(CHOSEN_BY, "end").keys() & other.values(CHOSEN_BY, "end").keys()
    return Compared(
        baseline=other.label,
        seeds=sorted(seeds),
        difference=difference.mean,
        low=difference.low,
        high=difference.high,
        verdict=f"{verdict.text(4) if verdict else '-'}{row.failures}",
    )


def describe(best: Best) -> str:
    """Return a description of the search's result and of how far it can be trusted."""
    counts = ", ".join(f"{count} {state}" for state, count in best["trials"].items() if count)
    lines = [f"Best of {counts}: {spell(best['values'])}, test loss {best['test_loss']:.4f} (seed 0)."]
    if best["comparison"] is not None:
        seeds: set[int] = set()
        for what in (*(f"{CHOSEN_BY} {when}" for when in POINTS), BEST_PLAIN):
            compared = best["comparison"].get(what)
            if isinstance(compared, dict) and compared["difference"] is not None:
                low, mean, high = (number(compared[key], 4, sign=True) for key in ("low", "difference", "high"))
                interval = "" if compared["low"] is None else f" ({low} to {high})"
                against = (
                    f"{BEST_PLAIN} of any length, {compared['baseline']}" if what == BEST_PLAIN else f"none, {what}"
                )
                seeds |= {*compared["seeds"]}
                lines.append(f"Against {against}: {mean}{interval}, {compared['verdict']}.")
        seen = f"Seeds {sorted(seeds)}, which the search has not seen, and the same trainer options."
        lines.append(seen if seeds else f"No seed of {best['comparison']['seeds']} can be compared: runs failed.")
    lines.append(
        "The best of many is optimistic: it was chosen by this very test split. Measure it once on records that "
        "nothing was chosen by; none itself was not searched for (--noise none does that)."
    )
    return "\n".join(lines)
