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

HEARTBEAT = 60  # seconds between heartbeats; a trial without one for twice as long is repeated
# Noise delays overfitting, so it is behind at first: prune only the worst quarter, and no early trial.
KEPT, FIRST = 75.0, 5


def open_study(name: str, url: str) -> optuna.Study:
    """Return the study with a name in a database, created if missing.

    Raises:
        NoiseError: if Optuna cannot use the database.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Heartbeats have been experimental since Optuna 2.5, and warn at every start.
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
    except Exception as error:  # errors of SQLAlchemy and of the database driver
        cause = one_line(error, 200)
        raise NoiseError(f"storage must be a database that Optuna can use, got {url!r}: {cause}.") from None


def trials(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """Return the trials of a study, optionally only those in given states."""
    return study.get_trials(deepcopy=False, states=states or None)


def count_trials(study: optuna.Study) -> int:
    """Return the number of finished and running trials; interrupted ones do not count."""
    optuna.storages.fail_stale_trials(study)
    failed = [trial for trial in trials(study, TrialState.FAIL) if "error" in trial.user_attrs]
    return len(failed) + len(trials(study, TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING))
