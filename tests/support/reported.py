"""Runs as the runner writes them, for reports: `none`, and two strategies that differ from it."""

from pathlib import Path

from neft_zoo.compare import summary
from neft_zoo.compare.records import RunRecord

SEEDS = range(3)


def summarize(runs):
    """Pivot runs that are given as JSON values."""
    return summary.summarize({Path(f"{place}.json"): RunRecord.from_dict(run) for place, run in enumerate(runs)})


def record(name, seed, end, best, train, passes=1, status="ok", **changes):
    """Return a run as the runner writes it."""
    points = [
        {"step": 5, "epoch": 1.0, "train_loss": train + 0.1, "test_loss": best},
        {"step": 10, "epoch": 2.0, "train_loss": train, "test_loss": end},
    ]
    made = {"format": 1, "key": f"{name}{seed}", "recipe": {"name": "r", "hash": "h"}, "config": {"learning_rate": 1}}
    made |= {"noise": {"name": name}, "version": 1, "control": "", "overrides": {}, "row": f"row-{name}", "seed": seed}
    made |= {"passes": passes, "share": 1.0, "status": status, "versions": {"torch": "2"}, "device": "cpu"}
    if status == "ok":
        made |= {"end": points[-1], "best": points[0], "tokens": 100, "wall_s": 2.0 * passes, "history": points}
    else:
        made |= {"error": "layers must be below 2, got 99.", "history": []}
    return made | changes
