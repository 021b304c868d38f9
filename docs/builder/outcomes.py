"""What results say: experiments, rows paired with `none` by seed, cells.

Pairing, intervals, correction and verdicts are those of `neft_zoo.compare.statistics`. A p value is corrected for the
rows and the two points (end and best) of its metric in its experiment; what a run costs is not tested.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from neft_zoo import registry
from neft_zoo.compare.results import Record
from neft_zoo.compare.statistics import Difference, holm, paired, verdict

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
        """Return metrics and points that any row has, in the order of the columns."""
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
        found["best_epoch"] = (record.get("best") or {}).get("epoch")
        found |= {name: record[name] for name in ("cpu_s", "wall_s", "peak_memory_mb") if name in record}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


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
