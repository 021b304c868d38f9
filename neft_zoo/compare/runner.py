"""Doing what is missing of a grid: processes, progress, and what a run leaves when it dies."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

from neft_zoo.compare import processes, results
from neft_zoo.compare.grid import Grid, Row, digest, fingerprint
from neft_zoo.compare.worker import Task, drawn_from, work
from neft_zoo.config.data import read_splits
from neft_zoo.config.measuring import OUTPUT, PROGRESS
from neft_zoo.config.options import RunOptions, read_options
from neft_zoo.console import quiet
from neft_zoo.errors import NoiseError

Point = dict[str, Any]


@dataclass
class Live:
    """A run in flight; `waits` holds what wakes the runner up."""

    task: Task
    process: Any
    told: Any
    points: list[Point] = field(default_factory=list)

    @property
    def waits(self) -> list[Any]:
        return [self.process.sentinel] if self.told.closed else [self.process.sentinel, self.told]


def tasks(grid: Grid, folder: Path, jobs: int = 1) -> list[Task]:
    """Return all runs of a grid, done or not.

    Raises:
        NoiseError: if the recipe, or what a control makes of it, is not accepted, or the folder holds results of
            another recipe.
    """
    settings = grid.settings
    recipe_hash = fingerprint(settings)
    known = next(iter(sorted(folder.glob("*.json"))), None)
    if known is not None:
        results.check_recipe(folder, results.read(known), recipe_hash, settings)
    check(grid)
    check_data(grid)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoiseError(f"output must be a folder that can be written to, got {folder}: {error.strerror}.") from None
    surroundings, versions = results.surroundings(), results.versions()
    made = []
    for row, seed in grid.runs():
        share = 1 / row.passes if grid.compute_matched else 1.0
        record: results.Record = {"format": results.FORMAT}
        record["key"] = digest([recipe_hash, row.key, seed, share, versions])
        record["recipe"] = {"name": grid.recipe, "hash": recipe_hash}
        record |= {"noise": row.noise, "version": row.version, "control": row.control, "overrides": row.overrides}
        record |= {"row": row.key, "seed": seed, "passes": row.passes, "share": share, "status": "failed"}
        record |= {"config": settings, "history": [], "versions": versions, **surroundings}
        path = results.path_of(folder, row.name, row.key, seed)
        graded = grid.config.get("completion_only_loss")
        config, threads = _config(grid, row, seed), int(jobs > 1)
        made.append(Task(record, config, path, share, graded, threads, grid.train_records, grid.evaluation))
    return made


def _config(grid: Grid, row: Row, seed: int) -> dict[str, Any]:
    config = {**grid.config, **row.overrides, **OUTPUT, **PROGRESS, "noise": row.noise, "seed": seed}
    if config.get("eval_strategy", "no") in ("no", False):
        config["eval_strategy"] = "epoch"
    return config


def check(grid: Grid) -> None:
    """Raise for what no run could work with, before the first one starts.

    Raises:
        NoiseError: if the recipe, or what a row's options make of it, is not accepted.
    """
    for row in {digest(row.overrides): row for row in grid.rows}.values():
        _check(_config(grid, row, 0))


def check_data(grid: Grid) -> None:
    """Raise if a split is missing, empty or too small, before every run of the grid says so.

    Raises:
        NoiseError: if it is.
    """
    options = _check(_config(grid, grid.rows[0], 0))
    with quiet():
        data = read_splits(options.script, options.training, options.mixture)
    drawn_from(data[options.script.dataset_train_split], grid.train_records)


def _check(config: dict[str, Any]) -> RunOptions:
    with tempfile.TemporaryDirectory(prefix="neft-zoo-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sft shows them; here they would come once more for every control
        return read_options({**config, "output_dir": scratch})


def done(task: Task) -> bool:
    """Return whether a run has its result already; a failed one is tried again."""
    if not task.path.exists():
        return False
    record = results.read(task.path)
    return record["key"] == task.record["key"] and record["status"] == "ok"


def run(todo: list[Task], jobs: int, finished: Callable[[Task, results.Record], None]) -> None:
    """Do runs, at most `jobs` at a time, and tell of each that ends.

    Raises:
        NoiseError: if jobs is not positive.
    """
    if jobs < 1:
        raise NoiseError(f"jobs must be a whole number >= 1, got {jobs}.")
    waiting, live = list(todo), []
    try:
        while waiting or live:
            while waiting and len(live) < jobs:
                live.append(start(waiting.pop(0)))
            connection.wait([item for each in live for item in each.waits])
            for each in list(live):
                for _ in points(each):
                    pass
                if not each.process.is_alive():
                    live.remove(each)
                    finished(each.task, finish(each))
    finally:
        for each in live:
            stop(each)


def start(task: Task) -> Live:
    """Start a run in a process of its own."""
    context = processes.context(bool(task.config.get("use_cpu")))
    task.path.unlink(missing_ok=True)  # an older result of the row: it must not be taken for this one
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(task, theirs))
    process.start()
    theirs.close()
    return Live(task, process, ours)


def points(live: Live) -> Iterator[Point]:
    """Return what a run has measured since the last call."""
    try:
        while not live.told.closed and live.told.poll():
            live.points.append(live.told.recv())
            yield live.points[-1]
    except (EOFError, OSError):
        live.told.close()


def finish(live: Live) -> results.Record:
    """Return the record of a run that has ended; one that was killed could not write its own."""
    live.process.join()
    path = live.task.path
    if not path.exists():
        error = f"the process ended with exit status {live.process.exitcode} before the run did."
        results.write(path, live.task.record | {"status": "failed", "error": error, "history": live.points})
    return results.read(path)


def stop(live: Live) -> None:
    """End a run; nothing of it is kept."""
    live.process.terminate()
    live.process.join(10)
    if live.process.is_alive():
        live.process.kill()
    live.task.path.with_suffix(".log").unlink(missing_ok=True)
