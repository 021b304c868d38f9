"""Doing what is missing of a grid: processes, progress, and what a run leaves when it dies."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from neft_zoo.compare import kept_models, processes, results
from neft_zoo.compare.fingerprint import digest, fingerprint
from neft_zoo.compare.grid import Grid
from neft_zoo.compare.measured_trainer import check_count_of_records
from neft_zoo.compare.records import Measurement, RecipeId, RunRecord, Steps
from neft_zoo.compare.rows import Row
from neft_zoo.compare.worker import Task, work
from neft_zoo.config.data import read_splits
from neft_zoo.config.measuring import OUTPUT, PROGRESS
from neft_zoo.config.options import RunOptions, read_options
from neft_zoo.console import quiet
from neft_zoo.errors import NoiseError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess


@dataclass
class Live:
    """A run in flight.

    Attributes:
        task: what it does.
        process: that does it.
        pipe: receives steps and evaluations.
        points: the evaluations so far.
        steps: how far it is; None as long as model and data are loaded.
    """

    task: Task
    process: BaseProcess
    pipe: connection.Connection
    points: list[Measurement] = field(default_factory=list)
    steps: Steps | None = None

    @property
    def events(self) -> list[int | connection.Connection]:
        """What `multiprocessing.connection.wait` is to wait for: the end of the process, or an evaluation."""
        return [self.process.sentinel] if self.pipe.closed else [self.process.sentinel, self.pipe]


Finished: TypeAlias = Callable[[Task, RunRecord], None]
Stepped: TypeAlias = Callable[[Live], None]


def tasks(grid: Grid, folder: Path, jobs: int = 1, models: Path | None = None) -> list[Task]:
    """Return all runs of a grid, done or not.

    Args:
        grid: of one recipe.
        folder: for the results.
        jobs: runs at a time.
        models: folder in which trained models are kept; None keeps none.

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
        share = float(row.length) / (row.passes if grid.compute_matched else 1)
        record = RunRecord(
            key=digest([recipe_hash, row.key, seed, share, versions]),
            recipe=RecipeId(grid.recipe, recipe_hash),
            noise=row.noise,
            version=row.version,
            control=row.control,
            overrides=row.overrides,
            row=row.key,
            seed=seed,
            passes=row.passes,
            share=share,
            status="failed",
            config=settings,
            history=[],
            versions=versions,
            margins=grid.margins or None,
            **surroundings,
        )
        path = results.path_of(folder, row.name, row.key, seed)
        config, threads = _config(grid, row, seed), int(jobs > 1)
        kept = None if models is None else kept_models.folder_of(models, record)
        options = (grid.graded, threads, grid.train_records, grid.evaluation, kept)
        made.append(Task(record, config, path, share, *options))
    return made


def _config(grid: Grid, row: Row, seed: int) -> dict[str, object]:
    config: dict[str, object] = {**grid.config, **row.overrides, **OUTPUT, **PROGRESS}
    config |= {"noise": row.noise, "seed": seed}
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
    """Raise if a split is missing, empty, too small or a stream, before every run of the grid says so.

    Raises:
        NoiseError: if it is.
    """
    options = _check(_config(grid, grid.rows[0], 0))
    with quiet():
        data = read_splits(options.script, options.training, options.mixture)
    records = data[options.script.dataset_train_split]
    if not isinstance(records, Sized):
        raise NoiseError("dataset_streaming must be false: a comparison measures the same records in every run.")
    check_count_of_records(records, grid.train_records)


def _check(config: dict[str, object]) -> RunOptions:
    with tempfile.TemporaryDirectory(prefix="neft-zoo-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sft shows them; here they would come once more for every control
        return read_options({**config, "output_dir": scratch})


def done(task: Task) -> bool:
    """Return whether a run has its result; a failed one is tried again."""
    if not task.path.exists():
        return False
    record = results.read(task.path)
    return record.key == task.record.key and record.ok


def run(todo: list[Task], jobs: int, finished: Finished, stepped: Stepped = lambda live: None) -> None:
    """Do runs, at most `jobs` at a time.

    Args:
        todo: what is missing.
        jobs: how many at a time.
        finished: is called for each that ends.
        stepped: is called whenever one has started or is a step further.

    Raises:
        NoiseError: if jobs is not positive.
    """
    if jobs < 1:
        raise NoiseError(f"jobs must be a whole number >= 1, got {jobs}.")
    waiting, live = list(todo), list[Live]()
    try:
        while waiting or live:
            while waiting and len(live) < jobs:
                live.append(start(waiting.pop(0)))
                stepped(live[-1])
            connection.wait([event for run in live for event in run.events])
            for run in list(live):
                for _ in points(run):
                    pass
                stepped(run)
                if not run.process.is_alive():
                    live.remove(run)
                    finished(run.task, finish(run))
    finally:
        for run in live:
            stop(run)


def start(task: Task) -> Live:
    """Start a run in a process of its own."""
    context = processes.context(bool(task.config.get("use_cpu")))
    task.path.unlink(missing_ok=True)  # an older result of the row: it must not be taken for this one
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(task, theirs))
    process.start()
    theirs.close()
    return Live(task, process, ours)


def points(live: Live) -> Iterator[Measurement]:
    """Yield the evaluations of a run since the last call, and take note of its steps."""
    try:
        while not live.pipe.closed and live.pipe.poll():
            received = live.pipe.recv()
            if isinstance(received, Steps):
                live.steps = received
                continue
            live.points.append(received)
            yield received
    except (EOFError, OSError):
        live.pipe.close()


def finish(live: Live) -> RunRecord:
    """Return the record of a run once it has ended; one that was killed could not write its own."""
    while live.process.is_alive():
        connection.wait(live.events)
        for _ in points(live):  # a pipe that nobody reads is full at some time, and stops the run
            pass
    live.process.join()
    path = live.task.path
    if not path.exists():
        error = f"the process ended with exit status {live.process.exitcode} before the run did."
        results.write(path, replace(live.task.record, error=error, history=live.points))
    return results.read(path)


def stop(live: Live) -> None:
    """End a run; nothing of it is kept."""
    live.process.terminate()
    live.process.join(10)
    if live.process.is_alive():
        live.process.kill()
    live.task.path.with_suffix(".log").unlink(missing_ok=True)
