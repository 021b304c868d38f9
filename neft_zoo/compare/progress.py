"""Showing the progress of a comparison: a line per finished run, and the remaining time."""

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


SILENCE = 30.0  # seconds between lines about a run without a terminal


def follow(grids: list[Grid], output: Path, jobs: int, ray: str | None = None, models: Path | None = None) -> None:
    """Run everything that is missing in all grids, locally or on a Ray cluster, and show the progress.

    Args:
        grids: of different recipes.
        output: folder with one subfolder per recipe.
        jobs: number of parallel runs.
        ray: address of the cluster; None for this machine.
        models: folder for trained models; None keeps none.

    Raises:
        NoiseError: for errors that are found before the first run; a run that fails is shown and recorded.
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
    todo = planning.missing(tasks)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"{len(tasks)} runs, {len(tasks) - len(todo)} of them done already.", markup=False)
    with Progress(*columns, TextColumn("{task.fields[left]}"), console=console, transient=True) as progress:
        display = Display(progress, tasks, todo)
        run(todo, jobs, display.finished, display.stepped)
    if display.failed == len(tasks) > 0:
        error = next(iter(display.failures)).rstrip(".")
        raise NoiseError(
            f"at least one run must succeed, got {display.failed} that failed, the first one by: {error}."
        )
    ended = f"{display.failed} of {len(todo)} runs failed; " if display.failed else ""
    folders = ", ".join(str(output / grid.recipe) for grid in grids)
    console.print(f"{ended}results in {folders}: neft-zoo report shows them.", markup=False)


class Display:
    """A progress bar for the comparison and one for each active run, and a line for each finished run.

    Args:
        progress: the bars, shown.
        tasks: all runs of the comparison.
        todo: the missing ones.

    Attributes:
        failed: number of failed runs.
        failures: the first run that failed with each error.
    """

    def __init__(self, progress: Progress, tasks: list[Task], todo: list[Task]) -> None:
        self.failed, self.failures = 0, dict[str, str]()
        self._progress, self._labels = progress, label(task.record for task in tasks)
        self._started, self._done, self._total = time.monotonic(), 0.0, sum(map(_cost, todo))
        self._bar = progress.add_task("compare", total=len(tasks), completed=len(tasks) - len(todo), left="")
        self._bars: dict[Path, TaskID] = {}
        self._often, self._warned = Seldom(SILENCE), RunWarnings(self._print)

    def stepped(self, live: runner.Live) -> None:
        """Show the progress of a run."""
        record, path = live.task.record, live.task.path
        self._warned(live.warned, self._labels[record.row])
        if path not in self._bars:
            self._bars[path] = self._progress.add_task(self._name(record), total=None, left="loading")
        elif live.steps is not None:
            done, total = live.steps.done, live.steps.total
            self._progress.update(self._bars[path], completed=done, total=total, left="")
            if not self._progress.console.is_terminal:
                self._often(f"{self._name(record)}: step {done} of {total}")

    def finished(self, task: Task, record: RunRecord, warned: list[Warned]) -> None:
        """Print how a run has ended, and the remaining time."""
        self._warned(warned, self._labels[record.row])
        if record.ok:
            self._done += _cost(task)
        else:  # a run that failed at once says nothing about the time of the others
            self._total, self.failed = self._total - _cost(task), self.failed + 1
        name = self._name(record)
        left = left_text(time.monotonic() - self._started, self._done, self._total)
        first = name if record.ok else self.failures.setdefault(record.error or "", name)
        ended = outcome(record) if first == name else f"failed as {first} did"
        self._print(f"{name}: {ended.rstrip('.')}; {left}")
        self._progress.update(self._bar, advance=1, left=left)
        if task.path in self._bars:
            self._progress.remove_task(self._bars.pop(task.path))

    def _name(self, record: RunRecord) -> str:
        return f"{self._labels[record.row]}, seed {record.seed}"

    def _print(self, text: str) -> None:
        self._progress.console.print(text, markup=False)


def _cost(task: Task) -> float:
    """Return the expected time of a run, relative to the others."""
    return task.share * task.record.passes


def outcome(record: RunRecord) -> str:
    """Return a description of how a run ended."""
    if not record.ok:
        return f"failed: {printable(record.error or 'no reason given')}"
    end, best = (needed(record.at(when))["test_loss"] for when in ("end", "best"))
    return f"test loss {end:.4f}, best {best:.4f}, {needed(record.wall_s):.0f} s"


def left_text(spent: float, done: float, total: float) -> str:
    """Return a description of the remaining time, assuming that passes continue at the same speed."""
    if total > 0 and not done:
        return "time left unknown"
    seconds = spent * (total - done) / done if done else 0.0
    if seconds < 60:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 5400 else f"{seconds / 3600:.1f} h left"
