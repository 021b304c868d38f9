"""Reading a tree of committed results: one experiment per folder, recipe and budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping
from itertools import chain, count
from pathlib import Path

from neft_zoo.compare.experiment import STEPS, Experiment
from neft_zoo.compare.records import RunRecord
from neft_zoo.compare.results import check_unique, read
from neft_zoo.compare.summary import summarize
from neft_zoo.errors import NoiseError

COMPUTE_FOLDERS = ("compute-matched", "equal-compute", "compute")
EVALUATED = "evaluated"  # folder of runs whose kept models were evaluated later, as `evaluated/dolly`
Runs = dict[Path, RunRecord]


def load(folder: Path) -> tuple[list[Experiment], list[str]]:
    """Return the experiments in a folder of results, and notes on those that cannot be shown.

    Files of runs are named relative to the parent folder, as in `results/dolly/none-0123abcd-s0.json`.

    Raises:
        NoiseError: if a file is damaged, or two in a folder are of one row and seed.
    """
    groups: dict[tuple[str, str], Runs] = defaultdict(dict)
    for path in sorted(folder.rglob("*.json")):
        record = read(path)
        where = Path("results") / path.relative_to(folder)
        groups[path.parent.relative_to(folder).as_posix(), record.recipe.hash][where] = record
    for runs in groups.values():
        check_unique(runs)
    groups = _with_evaluations(groups)
    experiments, notes, used = [], [], set[str]()
    for (place, _), runs in sorted(groups.items()):
        named = _named(name_of(place), next(iter(runs.values())), used)
        used.add(named.key)
        try:
            experiments.append(summarize(runs, named.name, included=lambda *column: True))
        except NoiseError:
            notes.append(f"{named.title}: no finished run of `none` yet, so nothing can be compared.")
    return sorted(experiments, key=lambda each: (each.name, each.budget != STEPS)), notes


def _named(name: str, first: RunRecord, used: Container[str]) -> Experiment:
    """Return an experiment without rows, whose name gives it a key, by which its files are named, that is not used."""
    recipe = f"{first.recipe.name} {first.recipe.hash[:4]}"
    names = chain([name, f"{name} ({recipe})"], (f"{name} ({recipe} {place})" for place in count(2)))
    return next(each for name in names if (each := Experiment(name, [], first.config)).key not in used)


def _with_evaluations(groups: Mapping[tuple[str, str], Runs]) -> dict[tuple[str, str], Runs]:
    """Return the groups with the evaluations that were made later in those of the same runs.

    The hash of a recipe includes what is evaluated, so that these are another recipe's; it is the same run if the
    configs agree otherwise and every evaluation during training has the same numbers.
    """
    joined = dict(groups)
    for key, later in groups.items():
        place = key[0].removeprefix(f"{EVALUATED}/")
        for other, runs in groups.items():
            if place != key[0] and other[0] == place and _are_of(later, runs):
                done = {(record.row, record.seed) for record in later.values()}
                rest = {path: run for path, run in joined[other].items() if (run.row, run.seed) not in done}
                joined[other] = later | rest
                joined.pop(key, None)
    return joined


def _are_of(later: Runs, runs: Runs) -> bool:
    """Return whether every run is one of `runs`, but for its evaluation."""
    known = {(run.row, run.seed): run for run in runs.values()}
    pairs = [(run, known.get((run.row, run.seed))) for run in later.values()]
    return all(other is not None and _is_same(run, other) for run, other in pairs)


def _is_same(run: RunRecord, other: RunRecord) -> bool:
    one, two = ({**record.config, "evaluation": None} for record in (run, other))
    return one == two and run.history == other.history


def name_of(folder: str) -> str:
    """Return the data set's name; runs at equal compute may be in `compute/dolly` or `dolly-compute`."""
    parts = [part for part in folder.split("/") if part not in COMPUTE_FOLDERS]
    for word in COMPUTE_FOLDERS:
        parts = [part.removesuffix(f"-{word}").removesuffix(f"_{word}") for part in parts]
    return "/".join(parts)
