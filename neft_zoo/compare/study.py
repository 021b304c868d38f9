"""Optuna studies in a database that several processes may share."""

from __future__ import annotations

import warnings

from neft_zoo.errors import NoiseError, one_line, require

try:
    import optuna
    from optuna.trial import FrozenTrial, TrialState
except ImportError:
    require("optuna", "tune", "tune")
    raise

HEARTBEAT = 60  # seconds between signs of life; a trial without any for twice as long is tried again
# Noise delays overfitting: it is behind at first. Hence only the worst quarter is given up, and no early trial.
KEPT, FIRST = 75.0, 5


def open_study(name: str, url: str) -> optuna.Study:
    """Return the study of a name in a database, a new one if there is none.

    Raises:
        NoiseError: if Optuna cannot use the database.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Heartbeats have been experimental since Optuna 2.5 and warn at every start.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
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
        cause = one_line(error, 200)
        raise NoiseError(f"storage must be a database that Optuna can use, got {url!r}: {cause}.") from None


def trials(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """Return the trials of a study, those in some states only where any are given."""
    return study.get_trials(deepcopy=False, states=states or None)


def count_trials(study: optuna.Study) -> int:
    """Return how many trials are done or running; one that was interrupted does not count."""
    optuna.storages.fail_stale_trials(study)
    failed = [trial for trial in trials(study, TrialState.FAIL) if "error" in trial.user_attrs]
    return len(failed) + len(trials(study, TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING))
