"""Executing runs: processes, progress, and the record of a run that dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from typing import TYPE_CHECKING, TypeAlias

from neft_zoo.compare import processes, results
from neft_zoo.compare.measurement import Measurement, Steps, Warned
from neft_zoo.compare.records import RunRecord
from neft_zoo.compare.worker import Task, work
from neft_zoo.errors import NoiseError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess


@dataclass
class Live:
    """An active run.

    Attributes:
        task: the task of the run.
        process: the process that executes it.
        pipe: receives steps and evaluations.
        points: the evaluations so far.
        steps: its progress; None while model and data are being loaded.
        warned: its warnings so far.
    """

    task: Task
    process: BaseProcess
    pipe: connection.Connection
    points: list[Measurement] = field(default_factory=list)
    steps: Steps | None = None
    warned: list[Warned] = field(default_factory=list)

    @property
    def events(self) -> list[int | connection.Connection]:
        """The events to wait for: the end of the process, or a message in the pipe."""
        return [self.process.sentinel] if self.pipe.closed else [self.process.sentinel, self.pipe]


Finished: TypeAlias = Callable[[Task, RunRecord, list[Warned]], None]
Stepped: TypeAlias = Callable[[Live], None]


def run(todo: list[Task], jobs: int, finished: Finished, stepped: Stepped = lambda live: None) -> None:
    """Execute runs, at most `jobs` in parallel.

    Args:
        todo: the missing runs.
        jobs: number of parallel runs.
        finished: called for each run that ends, with its warnings.
        stepped: called whenever a run starts or advances.

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
                ended = not run.process.is_alive()  # checked first, so that no message is left in a dead pipe
                for _ in points(run):
                    pass
                stepped(run)
                if ended:
                    live.remove(run)
                    finished(run.task, finish(run), run.warned)
    finally:
        for run in live:
            stop(run)


def start(task: Task) -> Live:
    """Start a run in its own process."""
    context = processes.context(bool(task.config.get("use_cpu")))
    task.path.unlink(missing_ok=True)  # an older result must not be mistaken for this run's
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(task, theirs))
    process.start()
    theirs.close()
    return Live(task, process, ours)


def points(live: Live) -> Iterator[Measurement]:
    """Yield a run's evaluations since the last call, and record its steps and warnings."""
    try:
        while not live.pipe.closed and live.pipe.poll():
            received = live.pipe.recv()
            if isinstance(received, Steps):
                live.steps = received
                continue
            if isinstance(received, Warned):
                live.warned.append(received)
                continue
            live.points.append(received)
            yield received
    except (EOFError, OSError):
        live.pipe.close()


def finish(live: Live) -> RunRecord:
    """Return the record of a run that has ended, also of one that was killed and could not write it."""
    while live.process.is_alive():
        connection.wait(live.events)
        for _ in points(live):  # a full pipe would block the run
            pass
    live.process.join()
    path = live.task.path
    if not path.exists():
        error = f"the process ended with exit status {live.process.exitcode} before the run did."
        results.write(path, replace(live.task.record, error=error, history=live.points))
    return results.read(path)


def stop(live: Live) -> None:
    """Kill a run and discard its results."""
    live.process.terminate()
    live.process.join(10)
    if live.process.is_alive():
        live.process.kill()
    live.task.path.with_suffix(".log").unlink(missing_ok=True)
