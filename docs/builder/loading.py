"""Reading the committed results: an experiment per folder, recipe and budget."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from neft_zoo.compare.results import Record, read
from neft_zoo.compare.summary import label

from .outcomes import COMPUTE, STEPS, Experiment, Row, fill


def load(folder: Path) -> tuple[list[Experiment], list[str]]:
    """Return the experiments of a folder of results, and what must be known about those that cannot be shown."""
    groups: dict[tuple[str, str], list[tuple[Path, Record]]] = defaultdict(list)
    for path in sorted(folder.rglob("*.json")):
        record = read(path)
        where = Path("results") / path.relative_to(folder)
        groups[path.parent.relative_to(folder).as_posix(), record["recipe"]["hash"]].append((where, record))
    experiments, notes, used = [], [], set()
    for (name, _), runs in sorted(groups.items()):
        matched = bool(runs[0][1]["config"].get("compute_matched"))
        dataset, budget = name_of(name), COMPUTE if matched else STEPS
        if (dataset, budget) in used:
            dataset = f"{dataset} ({runs[0][1]['recipe']['name']} {runs[0][1]['recipe']['hash'][:4]})"
        used.add((dataset, budget))
        rows = rows_of(runs)
        if not rows or rows[0].entry != "none" or rows[0].failed == len(rows[0].runs):
            notes.append(f"{dataset}, {budget}: no finished run of `none` yet, so nothing can be compared.")
            continue
        experiments.append(Experiment(dataset, budget, fill(rows), runs[0][1]["config"]))
    return sorted(experiments, key=lambda each: (each.dataset, each.budget != STEPS)), notes


def name_of(folder: str) -> str:
    """Return the data set's name: runs at equal compute may lie in `compute/dolly` or `dolly-compute`."""
    words = ("compute-matched", "equal-compute", "compute")
    parts = [part for part in folder.split("/") if part not in words]
    for word in words:
        parts = [part.removesuffix(f"-{word}").removesuffix(f"_{word}") for part in parts]
    return "/".join(parts)


def rows_of(runs: list[tuple[Path, Record]]) -> list[Row]:
    """Return rows, `none` first, controls last, without numbers yet."""
    labels = label([record for _, record in runs])
    found: dict[str, list[tuple[Path, Record]]] = defaultdict(list)
    for path, record in sorted(runs, key=lambda run: run[1]["seed"]):
        found[record["row"]].append((path, record))
    rows = [Row(flags(labels[key]), each[0][1]["noise"]["name"], each) for key, each in found.items()]
    for row in rows:
        row.entry = None if row.runs[0][1]["control"] else row.entry
    return sorted(rows, key=lambda row: (row.entry != "none", row.entry is None, _natural(row.label)))


def _natural(text: str) -> list[tuple[float, str]]:
    """Return a key that puts alpha=5 before alpha=10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(float(part), "") if place % 2 else (0.0, part) for place, part in enumerate(parts)]


def flags(text: str) -> str:
    """Return a label with switches by their names: `match_rms=True` as `match_rms`, one that is off not at all."""
    return re.sub(r"\b(\w+)=True\b", r"\1", re.sub(r" \w+=False\b", "", text))
