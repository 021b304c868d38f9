"""The committed results: one experiment per data set and budget, rows paired with `none` by seed.

Pairing, intervals, correction and verdicts are those of `neft_zoo.compare.statistics`. A p value is corrected for the
rows and the two points (end and best) of its metric in its experiment; what a run costs is not tested.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from neft_zoo import registry
from neft_zoo.compare.results import Record, read
from neft_zoo.compare.statistics import Difference, holm, paired, verdict
from neft_zoo.compare.summary import label

from .metrics import metric, ordered

POINTS = {"end": "at the end", "best": "at the best point"}
STEPS, COMPUTE = "equal steps", "equal compute"
NOT_METRICS = ("step", "epoch")


@dataclass(frozen=True)
class Cell:
    """A metric of a row at a point: mean over the seeds and paired difference to `none`."""

    mean: float
    seeds: int
    difference: Difference | None
    corrected: float | None
    verdict: str


@dataclass
class Row:
    """What was compared.

    Attributes:
        label: the strategy's name and the arguments that tell its rows apart, or the control's name.
        entry: name in the registry; None for a control.
        runs: where the site has it, and the record, by seed.
        cells: by metric and point.
        passes: forward passes per batch.
        compute: tokens times passes, relative to `none`; None without a common seed.
    """

    label: str
    entry: str | None
    runs: list[tuple[Path, Record]]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    compute: float | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        return self.runs[0][1]["noise"]

    @property
    def passes(self) -> int:
        return self.runs[0][1]["passes"]

    @property
    def family(self) -> str:
        return registry.make(self.arguments).family if self.entry else "control"

    @property
    def failed(self) -> int:
        return sum(record["status"] != "ok" for _, record in self.runs)

    def values(self, name: str, point: str) -> dict[int, float]:
        """Return a metric by seed, of the runs that ended well and measured it."""
        told = {r["seed"]: measured(r, point).get(name) for _, r in self.runs if r["status"] == "ok"}
        return {seed: value for seed, value in told.items() if value is not None}


@dataclass(frozen=True)
class Experiment:
    """Rows that can be compared: one recipe on one data set, at one budget. `none` is the first row."""

    dataset: str
    budget: str
    rows: list[Row]
    config: dict[str, Any]

    @property
    def key(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def title(self) -> str:
        return f"{self.dataset}, {self.budget}"

    @property
    def metrics(self) -> list[tuple[str, str]]:
        """Return metrics and points that any row has, in the order of the columns; the best test loss second."""
        found = {pair for row in self.rows for pair in row.cells}
        names = ordered({name for name, _ in found})
        return [(name, point) for name in names for point in POINTS if (name, point) in found and shown(name, point)]

    @property
    def seeds(self) -> int:
        return max(len(row.runs) for row in self.rows)

    def find(self, entry: str, **arguments: Any) -> Row | None:
        """Return the row of an entry with these arguments and otherwise its defaults."""
        wanted = registry.make(entry, **arguments).to_dict()
        return next((row for row in self.rows if row.entry and row.arguments == wanted), None)


def shown(name: str, point: str) -> bool:
    """Return whether a column shows it: of a run's best point what it is best in, as in a report."""
    return point == "end" or name == "test_loss"


def measured(record: Record, point: str) -> dict[str, float | None]:
    """Return all metrics of a run at a point; answers, memorization and costs are those of the end."""
    found = {name: value for name, value in (record.get(point) or {}).items() if name not in NOT_METRICS}
    train, test = found.get("train_loss"), found.get("test_loss")
    if train is not None and test is not None:
        found["gap"] = test - train
    if point == "end":
        found |= record.get("evaluation") or {}
        found |= {name: record[name] for name in ("cpu_s", "wall_s", "peak_memory_mb") if name in record}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


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
    rows = [Row(labels[key], each[0][1]["noise"]["name"], each) for key, each in found.items()]
    for row in rows:
        row.entry = None if row.runs[0][1]["control"] else row.entry
    return sorted(rows, key=lambda row: (row.entry != "none", row.entry is None, _natural(row.label)))


def _natural(text: str) -> list[tuple[float, str]]:
    """Return a key that puts alpha=5 before alpha=10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(float(part), "") if place % 2 else (0.0, part) for place, part in enumerate(parts)]


def fill(rows: list[Row]) -> list[Row]:
    """Give rows their cells."""
    none = rows[0]
    names = {name for row in rows for _, r in row.runs for point in POINTS for name in measured(r, point)}
    for name in names:
        drafts = []
        for row in rows:
            for point in POINTS:
                values = row.values(name, point)
                if values:
                    drafts.append((row, point, values, None if row is none else difference(row, none, name, point)))
        tested = [None if each is None or metric(name).cost else each.p for *_, each in drafts]
        for (row, point, values, each), p in zip(drafts, holm(tested), strict=True):
            told = "-" if each is None or metric(name).cost else verdict(each, p, metric(name).better)
            row.cells[name, point] = Cell(fmean(values.values()), len(values), each, p, told)
    for row in rows:
        spent, plain = (_spent(each) for each in (row, none))
        both = spent.keys() & plain.keys()
        row.compute = sum(spent[s] for s in both) / sum(plain[s] for s in both) if both else None
    return rows


def difference(row: Row, other: Row, name: str, point: str) -> Difference:
    """Return the paired difference of two rows in a metric, row less other."""
    ours, theirs = row.values(name, point), other.values(name, point)
    return paired([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def _spent(row: Row) -> dict[int, float]:
    return {r["seed"]: r["passes"] * r["tokens"] for _, r in row.runs if r["status"] == "ok"}
