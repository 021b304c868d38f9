"""Doing runs: processes, progress, and what a run leaves when it dies."""

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
    """A run in flight.

    Attributes:
        task: what it does.
        process: that does it.
        pipe: receives steps and evaluations.
        points: the evaluations so far.
        steps: how far it is; None as long as model and data are loaded.
        warned: what it has warned of.
    """

    task: Task
    process: BaseProcess
    pipe: connection.Connection
    points: list[Measurement] = field(default_factory=list)
    steps: Steps | None = None
    warned: list[Warned] = field(default_factory=list)

    @property
    def events(self) -> list[int | connection.Connection]:
        """What `multiprocessing.connection.wait` is to wait for: the end of the process, or an evaluation."""
        return [self.process.sentinel] if self.pipe.closed else [self.process.sentinel, self.pipe]


Finished: TypeAlias = Callable[[Task, RunRecord, list[Warned]], None]
Stepped: TypeAlias = Callable[[Live], None]


def run(todo: list[Task], jobs: int, finished: Finished, stepped: Stepped = lambda live: None) -> None:
    """Do runs, at most `jobs` at a time.

    Args:
        todo: what is missing.
        jobs: how many at a time.
        finished: is called for each that ends, with what it warned of.
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
                ended = not run.process.is_alive()  # asked first, so that nothing is left in the pipe of one that has
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
    """Start a run in a process of its own."""
    context = processes.context(bool(task.config.get("use_cpu")))
    task.path.unlink(missing_ok=True)  # an older result of the row: it must not be taken for this one
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(task, theirs))
    process.start()
    theirs.close()
    return Live(task, process, ours)


def points(live: Live) -> Iterator[Measurement]:
    """Yield the evaluations of a run since the last call, and take note of its steps and warnings."""
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
