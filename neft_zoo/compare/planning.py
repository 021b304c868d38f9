"""Planning the runs of a grid, and checking before the first one starts that all of them can work."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Sized
from dataclasses import replace
from pathlib import Path

from neft_zoo.compare import kept_models, results
from neft_zoo.compare.fingerprint import digest, fingerprint
from neft_zoo.compare.grid import Grid
from neft_zoo.compare.measured_trainer import check_count_of_records
from neft_zoo.compare.records import RecipeId, RunRecord
from neft_zoo.compare.rows import Row
from neft_zoo.compare.worker import Task
from neft_zoo.config.data import read_splits
from neft_zoo.config.measuring import OUTPUT, PROGRESS
from neft_zoo.config.options import RunOptions, read_options
from neft_zoo.console import quiet
from neft_zoo.errors import NoiseError


def tasks(grid: Grid, folder: Path, jobs: int = 1, models: Path | None = None) -> list[Task]:
    """Return all runs of a grid, finished or not.

    Args:
        grid: of one recipe.
        folder: for the results.
        jobs: number of parallel runs.
        models: folder for trained models; None keeps none.

    Raises:
        NoiseError: if the recipe, alone or with a control, is invalid, or the folder has results of another recipe.
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
    """Raise, before the first run starts, for options that no run could work with.

    Raises:
        NoiseError: if the recipe, alone or with a row's options, is invalid.
    """
    for row in {digest(row.overrides): row for row in grid.rows}.values():
        _check(_config(grid, row, 0))


def check_data(grid: Grid) -> None:
    """Raise, once instead of in every run, if a split is missing, empty, too small or a stream.

    Raises:
        NoiseError: if this is the case.
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
        warnings.simplefilter("ignore")  # shown by `sft`; here they would be repeated for every control
        return read_options({**config, "output_dir": scratch})


def is_finished(task: Task) -> bool:
    """Return whether a run has a result; a failed run is repeated."""
    return _finished(task) is not None


def missing(tasks: Iterable[Task]) -> list[Task]:
    """Return the tasks without a result, and give the others the margins of their recipe as it is now."""
    todo = []
    for task in tasks:
        record = _finished(task)
        if record is None:
            todo.append(task)
        elif record.margins != task.record.margins:
            results.write(task.path, replace(record, margins=task.record.margins))
    return todo


def _finished(task: Task) -> RunRecord | None:
    record = results.read(task.path) if task.path.exists() else None
    return record if record is not None and record.key == task.record.key and record.ok else None
