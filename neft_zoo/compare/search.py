"""`neft-zoo tune`: a search by Optuna, using the runner of `compare`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from pathlib import Path

from neft_zoo import registry
from neft_zoo.compare import planning, results, runner
from neft_zoo.compare import search_space as space
from neft_zoo.compare.fingerprint import digest, fingerprint
from neft_zoo.compare.grid import Grid, make_grid
from neft_zoo.compare.records import RunRecord, needed
from neft_zoo.compare.rows import Row
from neft_zoo.compare.run_warnings import RunWarnings
from neft_zoo.compare.study import FrozenTrial, TrialState, count_trials, open_study, optuna, trials
from neft_zoo.compare.worker import Task
from neft_zoo.console import Seldom, printable, say
from neft_zoo.errors import NoiseError
from neft_zoo.registry.strategy import Strategy

SILENCE = 10.0  # seconds between lines about a trial's steps


class Failed(Exception):  # noqa: N818
    """Raised for a trial that failed for a reason that is already recorded in its study."""


@dataclass(frozen=True)
class Search:
    """A study, and the parts of its trials.

    Attributes:
        study: Optuna's study.
        strategy: the strategy to train with.
        space: the search space.
        grid: of the recipe, without rows.
        folder: contains a folder per trial.
        given_up: trials of this process that other processes considered dead.
        warned: prints the warnings of runs.
    """

    study: optuna.Study
    strategy: Strategy
    space: list[space.Dimension]
    grid: Grid
    folder: Path
    given_up: list[int] = field(default_factory=list)
    warned: RunWarnings = field(default_factory=lambda: RunWarnings(say))

    def row(self, values: Mapping[str, object]) -> Row:
        return space.row_of(self.strategy, values)

    def objective(self, trial: optuna.Trial) -> float:
        """Train once and return the final held-out loss (nats per graded token)."""
        values = {dimension.name: dimension.suggest(trial) for dimension in self.space}
        trial.set_user_attr("values", values)
        grid = replace(self.grid, rows=[self.row(values)], seeds=[0])
        try:
            task = planning.tasks(grid, self.folder / f"trial-{trial.number:04}")[0]
            record = results.read(task.path) if planning.is_finished(task) else follow(trial, task, self.warned)
            error = None if record.ok else record.error or "no reason given"
        except (NoiseError, optuna.exceptions.UpdateFinishedTrialError) as raised:
            record, error = None, str(raised)
        if trials(self.study)[trial.number].state.is_finished():
            self.given_up.append(trial.number)
            raise Failed("left to other processes")
        if record is None or error is not None:
            trial.set_user_attr("error", error)
            raise Failed(error)
        return needed(record.end)["test_loss"]


def follow(trial: optuna.Trial, task: Task, warned: RunWarnings) -> RunRecord:
    """Execute a run, report its measurements, and stop it if the pruner decides so."""
    name, seldom = f"trial {trial.number}", Seldom(SILENCE)
    say(f"{name}, {spell(trial.user_attrs['values'])}: begins")
    live = runner.start(task)
    try:
        while live.process.is_alive():
            connection.wait(live.events)
            for point in runner.points(live):
                of = "" if live.steps is None else f" of {live.steps.total}"
                say(f"{name}, step {point.step}{of}: test loss {point['test_loss']:.4f}")
                trial.report(point["test_loss"], point.step)
                if trial.should_prune():
                    trial.set_user_attr("pruned_at", point.step)
                    raise optuna.TrialPruned
            warned(live.warned, task.record.name)
            if live.steps is not None:
                seldom(f"{name}: step {live.steps.done} of {live.steps.total}")
        return runner.finish(live)
    finally:
        if live.process.is_alive():
            runner.stop(live)


def open_search(
    name: str,
    noise: str | Mapping[str, object] | None,
    texts: Sequence[str],
    output: Path,
    storage: str | None,
    train_records: int | None,
) -> Search:
    """Return a new or existing study, after checking everything that its trials need.

    Raises:
        NoiseError: if recipe, noise, search or storage is invalid, or the study is of another search.
    """
    grid = make_grid(name, train_records=train_records)
    own = next((row.noise for row in grid.rows if row.noise["name"] != "none"), "neft_uniform")
    strategy = registry.make(own if noise is None else noise)
    dimensions = space.make_space(texts, strategy)
    for dimension in dimensions:
        for value in dimension.ends:
            planning.check(replace(grid, rows=[space.row_of(strategy, {dimension.name: value})]))
    planning.check_data(grid)
    folder = output / grid.recipe
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoiseError(f"output must be a folder that can be written to, got {folder}: {error.strerror}.") from None
    settings = [fingerprint(grid.settings), strategy.to_dict(), strategy.version, results.versions()]
    identity = digest([*settings, [vars(dimension) for dimension in dimensions]])
    study = open_study(f"neft-zoo {grid.recipe}", storage or f"sqlite:///{folder / 'study.db'}")
    if study.user_attrs.get("search", identity) != identity:
        raise NoiseError(
            f"storage must hold a study of the same recipe, noise and search, got another one in {storage or folder}: "
            "choose another output or storage."
        )
    study.set_user_attr("search", identity)
    return Search(study, strategy, dimensions, grid, folder)


def tune(search: Search, count: int) -> None:
    """Run the missing trials of a study, possibly in parallel with other processes.

    Raises:
        NoiseError: if no trial succeeded.
    """
    while count_trials(search.study) < count:
        with _left_to_others(search):
            search.study.optimize(search.objective, n_trials=1, catch=(Failed,), callbacks=[_print_trial])
    if not trials(search.study, TrialState.COMPLETE):
        errors = [trial.user_attrs.get("error") for trial in trials(search.study, TrialState.FAIL)]
        last = next((error for error in reversed(errors) if error), "interrupted")
        raise NoiseError(f"at least one trial must end well, but none did: {last}")


@contextmanager
def _left_to_others(search: Search) -> Iterator[None]:
    """Continue after a trial that other processes have repeated, because this process sent no heartbeat for too long.

    Optuna cannot finish such a trial, and raises errors of various types.
    """
    before = len(search.given_up)
    try:
        yield
    except Exception:
        if len(search.given_up) == before:
            raise
        print(f"trial {search.given_up[-1]}: left to other processes", file=sys.stderr, flush=True)


def _print_trial(study: optuna.Study, trial: FrozenTrial) -> None:
    ended = {
        TrialState.COMPLETE: lambda: f"test loss {trial.value:.4f}",
        TrialState.PRUNED: lambda: f"given up at step {trial.user_attrs['pruned_at']}",
        TrialState.FAIL: lambda: f"failed: {trial.user_attrs.get('error')}",
    }[trial.state]()
    values = spell(trial.user_attrs.get("values", {}))
    print(f"trial {trial.number}, {values}: {printable(ended)}", file=sys.stderr, flush=True)


def spell(values: Mapping[str, object]) -> str:
    """Return values as one line."""
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
