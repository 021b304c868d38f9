"""`neft-zoo tune`: a search by Optuna on the runner of `compare`, and what its best is worth."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

from neft_zoo import registry
from neft_zoo.compare import results, runner
from neft_zoo.compare import search_space as space
from neft_zoo.compare.grid import Grid, Row, digest, fingerprint, make_grid
from neft_zoo.errors import NoiseError
from neft_zoo.files import write_json
from neft_zoo.noise.schedules import check_count
from neft_zoo.registry.strategy import Strategy

try:
    import optuna
    from optuna.trial import TrialState
except ImportError:
    raise NoiseError("tune needs optuna: pip install 'neft-zoo[tune]'.") from None

HEARTBEAT = 60  # seconds between signs of life; a trial without any for twice as long is tried again
# Noise delays overfitting: it is behind at first. Hence only the worst quarter is given up, and no early trial.
KEPT, FIRST = 75.0, 5


class Failed(Exception):  # noqa: N818
    """A trial that failed for a reason that its study has recorded."""


@dataclass(frozen=True)
class Search:
    """A study and what its trials are made of.

    Attributes:
        study: Optuna's.
        strategy: what is trained with.
        space: what is searched.
        grid: of the recipe, without rows.
        folder: a folder per trial is made in it.
        given_up: trials of this process that others took for dead.
    """

    study: optuna.Study
    strategy: Strategy
    space: list[space.Dimension]
    grid: Grid
    folder: Path
    given_up: list[int] = field(default_factory=list)

    def row(self, values: dict[str, Any]) -> Row:
        return space.row_of(self.strategy, values)

    def objective(self, trial: optuna.Trial) -> float:
        """Train once and return the held-out loss at the end (nats per graded token)."""
        values = {each.name: each.suggest(trial) for each in self.space}
        trial.set_user_attr("values", values)
        grid = replace(self.grid, rows=[self.row(values)], seeds=[0])
        try:
            task = runner.tasks(grid, self.folder / f"trial-{trial.number:04}")[0]
            record: results.Record = results.read(task.path) if runner.done(task) else follow(trial, task)
        except NoiseError as error:
            record = {"status": "failed", "error": str(error)}
        except optuna.exceptions.UpdateFinishedTrialError as error:
            record = {"status": "failed", "error": str(error)}
        if _trials(self.study)[trial.number].state.is_finished():
            self.given_up.append(trial.number)
            raise Failed("left to other processes")
        if record["status"] != "ok":
            trial.set_user_attr("error", record["error"])
            raise Failed(record["error"])
        return record["end"]["test_loss"]


def follow(trial: optuna.Trial, task: Any) -> results.Record:
    """Do a run, report what it measures and end it where the pruner says so."""
    live = runner.start(task)
    try:
        while live.process.is_alive():
            connection.wait(live.waits)
            for point in runner.points(live):
                trial.report(point["test_loss"], point["step"])
                if trial.should_prune():
                    trial.set_user_attr("pruned_at", point["step"])
                    raise optuna.TrialPruned
        return runner.finish(live)
    finally:
        if live.process.is_alive():
            runner.stop(live)


def open_search(
    name: str, noise: Any, texts: Sequence[str], output: Path, storage: str | None, train_records: int | None
) -> Search:
    """Return a new study or the one that is there; everything is checked before the first trial.

    Raises:
        NoiseError: if recipe, noise, search or storage is not accepted, or the study is another search.
    """
    grid = make_grid(name, train_records=train_records)
    own = next((row.noise for row in grid.rows if row.noise["name"] != "none"), "neft_uniform")
    strategy = registry.make(own if noise is None else noise)
    dimensions = space.make_space(texts, strategy)
    for each in dimensions:
        for value in each.ends:
            runner.check(replace(grid, rows=[space.row_of(strategy, {each.name: value})]))
    runner.check_data(grid)
    folder = output / grid.recipe
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoiseError(f"output must be a folder that can be written to, got {folder}: {error.strerror}.") from None
    settings = [fingerprint(grid.settings), strategy.to_dict(), strategy.version, results.versions()]
    told = {"search": digest([*settings, [vars(each) for each in dimensions]])}
    study = _open_study(f"neft-zoo {grid.recipe}", storage or f"sqlite:///{folder / 'study.db'}")
    if study.user_attrs.get("search", told["search"]) != told["search"]:
        raise NoiseError(
            f"storage must hold a study of the same recipe, noise and search, got another one in {storage or folder}: "
            "choose another output or storage."
        )
    study.set_user_attr("search", told["search"])
    return Search(study, strategy, dimensions, grid, folder)


def _open_study(name: str, url: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # heartbeats are called so
    try:
        again = optuna.storages.RetryHeartbeatStaleTrialCallback()
        storage = optuna.storages.RDBStorage(
            url, heartbeat_interval=HEARTBEAT, grace_period=2 * HEARTBEAT, heartbeat_stale_trial_callback=again
        )
        pruner = optuna.pruners.PercentilePruner(KEPT, n_startup_trials=FIRST)
        return optuna.create_study(
            storage=storage, study_name=name, direction="minimize", pruner=pruner, load_if_exists=True
        )
    except Exception as error:  # SQLAlchemy's and the database driver's own kinds
        cause = " ".join(str(error).split())[:200]
        raise NoiseError(f"storage must be a database that Optuna can use, got {url!r}: {cause}.") from None


def tune(search: Search, trials: int) -> None:
    """Do what is missing of a study, next to other processes that may do the same.

    Raises:
        NoiseError: if no trial ended well.
    """
    while _count(search.study) < trials:
        with _left_to_others(search):
            search.study.optimize(search.objective, n_trials=1, catch=(Failed,), callbacks=[_tell])
    if not _trials(search.study, TrialState.COMPLETE):
        errors = [trial.user_attrs.get("error", "interrupted") for trial in _trials(search.study, TrialState.FAIL)]
        raise NoiseError(f"at least one trial must end well, but none did: {(errors or ['interrupted'])[-1]}")


@contextmanager
def _left_to_others(search: Search) -> Iterator[None]:
    """Go on after a trial that others have tried again, since this process gave no sign of life for too long.

    Optuna cannot end such a trial, and raises errors of several kinds.
    """
    before = len(search.given_up)
    try:
        yield
    except Exception:
        if len(search.given_up) == before:
            raise
        print(f"trial {search.given_up[-1]}: left to other processes", file=sys.stderr, flush=True)


def _trials(study: optuna.Study, *states: TrialState) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=states or None)


def _count(study: optuna.Study) -> int:
    """Return how many trials are done or running; one that was interrupted did not count."""
    optuna.storages.fail_stale_trials(study)
    failed = [trial for trial in _trials(study, TrialState.FAIL) if "error" in trial.user_attrs]
    return len(failed) + len(_trials(study, TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING))


def _tell(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    found = {
        TrialState.COMPLETE: lambda: f"test loss {trial.value:.4f}",
        TrialState.PRUNED: lambda: f"given up at step {trial.user_attrs['pruned_at']}",
        TrialState.FAIL: lambda: f"failed: {trial.user_attrs.get('error')}",
    }[trial.state]()
    print(f"trial {trial.number}, {spell(trial.user_attrs.get('values', {}))}: {found}", file=sys.stderr, flush=True)


def spell(values: dict[str, Any]) -> str:
    """Return values in a line."""
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())


def confirm(search: Search, seeds: int) -> dict[str, Any]:
    """Return the best, compared with `none` at seeds that the search has not seen; the report is written as well.

    Raises:
        NoiseError: if seeds is negative.
    """
    check_count("seeds", seeds)
    best, study = search.study.best_trial, search.study
    row = search.row(best.user_attrs["values"])
    report: dict[str, Any] = {"values": best.user_attrs["values"], "noise": row.noise, "options": row.overrides}
    report |= {"trial": best.number, "test_loss": best.value}
    report["trials"] = {state.name.lower(): len(_trials(study, state)) for state in TrialState}
    report["comparison"] = None
    if seeds and row.noise["name"] != "none":
        plain = space.row_of(registry.make("none"), row.overrides)
        grid = replace(search.grid, rows=[plain, row], seeds=list(range(1, seeds + 1)))
        folder = search.folder / f"best-{row.key[:8]}"
        tasks = runner.tasks(grid, folder)
        runner.run([task for task in tasks if not runner.done(task)], 1, lambda task, record: None)
        report["comparison"] = _compared(folder, [results.read(task.path) for task in tasks])
    write_json(search.folder / "best.json", report, indent=1)
    return report


def _compared(folder: Path, records: list[results.Record]) -> dict[str, Any]:
    from neft_zoo.compare.summary import summarize

    lines = [line for line in summarize(records).lines if line.difference and line.metric.startswith("test_loss")]
    found = {
        line.metric: {
            "difference": line.difference.mean,
            "low": line.difference.low,
            "high": line.difference.high,
            "verdict": line.verdict,
        }
        for line in lines
        if line.difference
    }
    return {"folder": str(folder), "seeds": [record["seed"] for record in records if record["row"]][::2], **found}


def told(report: dict[str, Any]) -> str:
    """Return in words what was found and how far it can be trusted."""
    counts = ", ".join(f"{count} {state}" for state, count in report["trials"].items() if count)
    lines = [f"Best of {counts}: {spell(report['values'])}, test loss {report['test_loss']:.4f} (seed 0)."]
    compared = report["comparison"]
    if compared:
        for metric in ("test_loss end", "test_loss best"):
            found = compared[metric]
            if found["difference"] is not None:
                span = "" if found["low"] is None else f" ({found['low']:+.4f} to {found['high']:+.4f})"
                lines.append(f"Against none, {metric}: {found['difference']:+.4f}{span}, {found['verdict']}.")
        lines.append(f"Seeds {compared['seeds']}, which the search has not seen, and the same trainer options.")
    lines.append(
        "The best of many is optimistic: it was chosen by this very test split. Measure it once on records that "
        "nothing was chosen by; none itself was not searched for (--noise none does that)."
    )
    return "\n".join(lines)
