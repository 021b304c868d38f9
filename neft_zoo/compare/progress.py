"""Following a comparison: a line per finished run, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from neft_zoo.compare import planning, runner
from neft_zoo.compare.grid import Grid
from neft_zoo.compare.labels import label
from neft_zoo.compare.measurement import Warned
from neft_zoo.compare.records import RunRecord, needed
from neft_zoo.compare.run_warnings import RunWarnings
from neft_zoo.compare.worker import Task
from neft_zoo.console import Seldom, printable, say
from neft_zoo.errors import NoiseError, require
from neft_zoo.files import locked

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
except ImportError:
    require("rich.console", "compare", "compare")
    raise


SILENCE = 30.0  # seconds between lines about a run where there is no terminal


def follow(grids: list[Grid], output: Path, jobs: int, ray: str | None = None, models: Path | None = None) -> None:
    """Do what is missing of all grids, here or on the Ray cluster at an address, showing how far it is.

    Args:
        grids: of different recipes.
        output: folder; one inside per recipe.
        jobs: runs at a time.
        ray: address of the cluster; None for this machine.
        models: folder in which trained models are kept; None keeps none.

    Raises:
        NoiseError: for what is known to be wrong before the first run; a run that fails is shown and kept.
    """
    run = runner.run
    if ray is not None:
        from neft_zoo.compare.ray_cluster import runs_on

        run = runs_on(ray)
    with ExitStack() as held:
        for grid in grids:
            held.enter_context(locked("output", output / grid.recipe))
        say("reading data")
        tasks = [task for grid in grids for task in planning.tasks(grid, output / grid.recipe, jobs, models)]
        _follow(grids, output, tasks, jobs, run)


def _follow(grids: list[Grid], output: Path, tasks: list[Task], jobs: int, run: Callable[..., None]) -> None:
    todo = [task for task in tasks if not planning.is_finished(task)]
    labels = label(task.record for task in tasks)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"{len(tasks)} runs, {len(tasks) - len(todo)} of them done already.", markup=False)
    started, done, total, failed = time.monotonic(), 0.0, sum(map(_cost, todo)), 0
    with Progress(*columns, TextColumn("{task.fields[left]}"), console=console, transient=True) as progress:
        bar = progress.add_task("compare", total=len(tasks), completed=len(tasks) - len(todo), left="")
        bars: dict[Path, TaskID] = {}
        often, warned = Seldom(SILENCE), RunWarnings(lambda text: console.print(text, markup=False))
        failures: dict[str, str] = {}  # the first run of every error

        def stepped(live: runner.Live) -> None:
            record, path = live.task.record, live.task.path
            name = f"{labels[record.row]}, seed {record.seed}"
            warned(live.warned, labels[record.row])
            if path not in bars:
                bars[path] = progress.add_task(name, total=None, left="loading")
            elif live.steps is not None:
                done, total = live.steps.done, live.steps.total
                progress.update(bars[path], completed=done, total=total, left="")
                if not console.is_terminal:
                    often(f"{name}: step {done} of {total}")

        def finished(task: Task, record: RunRecord, warnings: list[Warned]) -> None:
            nonlocal done, total, failed
            warned(warnings, labels[record.row])
            if record.ok:
                done += _cost(task)
            else:  # it took next to no time, and says nothing of the others
                total, failed = total - _cost(task), failed + 1
            name = f"{labels[record.row]}, seed {record.seed}"
            left = left_text(time.monotonic() - started, done, total)
            first = name if record.ok else failures.setdefault(record.error or "", name)
            ended = outcome(record) if first == name else f"failed as {first} did"
            console.print(f"{name}: {ended.rstrip('.')}; {left}", markup=False)
            progress.update(bar, advance=1, left=left)
            if task.path in bars:
                progress.remove_task(bars.pop(task.path))

        run(todo, jobs, finished, stepped)
    if failed == len(tasks) > 0:
        error = next(iter(failures)).rstrip(".")
        raise NoiseError(f"at least one run must succeed, got {failed} that failed, the first one by: {error}.")
    ended = f"{failed} of {len(todo)} runs failed; " if failed else ""
    folders = ", ".join(str(output / grid.recipe) for grid in grids)
    console.print(f"{ended}results in {folders}: neft-zoo report shows them.", markup=False)


def _cost(task: Task) -> float:
    """Return how long a run takes, relative to the others."""
    return task.share * task.record.passes


def outcome(record: RunRecord) -> str:
    """Return in words how a run ended."""
    if not record.ok:
        return f"failed: {printable(record.error or 'no reason given')}"
    end, best = (needed(record.at(when))["test_loss"] for when in ("end", "best"))
    return f"test loss {end:.4f}, best {best:.4f}, {needed(record.wall_s):.0f} s"


def left_text(spent: float, done: float, total: float) -> str:
    """Return in words the time that is left, if passes go on taking as long as they did."""
    seconds = spent * (total - done) / done if done else 0.0
    if seconds < 60:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 5400 else f"{seconds / 3600:.1f} h left"
