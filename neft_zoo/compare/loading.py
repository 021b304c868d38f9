"""Reading a tree of committed results: one experiment per folder, recipe and budget."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from neft_zoo.compare.experiment import COMPUTE, STEPS, Experiment
from neft_zoo.compare.records import RunRecord
from neft_zoo.compare.results import read
from neft_zoo.compare.summary import summarize
from neft_zoo.errors import NoiseError

COMPUTE_FOLDERS = ("compute-matched", "equal-compute", "compute")


def load(folder: Path) -> tuple[list[Experiment], list[str]]:
    """Return the experiments in a folder of results, and notes on those that cannot be shown.

    Files of runs are named relative to the parent folder, as in `results/dolly/none-0123abcd-s0.json`.
    """
    groups: dict[tuple[str, str], dict[Path, RunRecord]] = defaultdict(dict)
    for path in sorted(folder.rglob("*.json")):
        record = read(path)
        where = Path("results") / path.relative_to(folder)
        groups[path.parent.relative_to(folder).as_posix(), record.recipe.hash][where] = record
    experiments, notes, used = [], [], set()
    for (place, _), runs in sorted(groups.items()):
        first = next(iter(runs.values()))
        name, budget = name_of(place), COMPUTE if first.config.get("compute_matched") else STEPS
        if (name, budget) in used:
            name = f"{name} ({first.recipe.name} {first.recipe.hash[:4]})"
        used.add((name, budget))
        try:
            experiments.append(summarize(runs, name, included=lambda *column: True))
        except NoiseError:
            notes.append(f"{name}, {budget}: no finished run of `none` yet, so nothing can be compared.")
    return sorted(experiments, key=lambda each: (each.name, each.budget != STEPS)), notes


def name_of(folder: str) -> str:
    """Return the data set's name; runs at equal compute may be in `compute/dolly` or `dolly-compute`."""
    parts = [part for part in folder.split("/") if part not in COMPUTE_FOLDERS]
    for word in COMPUTE_FOLDERS:
        parts = [part.removesuffix(f"-{word}").removesuffix(f"_{word}") for part in parts]
    return "/".join(parts)
