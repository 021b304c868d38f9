"""What the results of a comparison say: a line per row and metric."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from neft_zoo.compare.results import Record
from neft_zoo.compare.statistics import Difference, holm, paired, verdict
from neft_zoo.errors import NoiseError

# What is good; a metric that is not named here is neither. A higher training loss can be the aim.
BETTER = {"test_loss": "lower", "test_accuracy": "higher", "test_calibration_error": "lower"}
# Of a run's best evaluation only what it is best in is shown: the rest is not at its best there.
BEST = "test_loss"


@dataclass(frozen=True)
class Line:
    """A row in a metric.

    Attributes:
        row: its label.
        metric: name, with "end" or "best" behind it.
        seeds: runs that ended well and have the metric.
        asked: runs in all, failed ones too.
        mean: over the seeds, None without one.
        difference: paired, to `none`; None for `none` itself.
        corrected: p value after Holm's correction over all lines.
        verdict: in words.
        passes: forward passes per batch.
        compute: tokens times passes, relative to `none`.
        time: training time, relative to `none`.
    """

    row: str
    metric: str
    seeds: int
    asked: int
    mean: float | None
    difference: Difference | None
    corrected: float | None
    verdict: str
    passes: int
    compute: float | None
    time: float | None

    @property
    def per_compute(self) -> float | None:
        """The difference per unit of compute; `none` costs one."""
        if self.difference is None or self.difference.mean is None or not self.compute:
            return None
        return self.difference.mean / self.compute


@dataclass(frozen=True)
class Summary:
    """A comparison: its lines, the rows' runs, and what a reader must know besides."""

    recipe: str
    lines: list[Line]
    runs: dict[str, list[Record]]
    notes: list[str]

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(line.metric for line in self.lines))


def summarize(records: list[Record]) -> Summary:
    """Return what results say.

    Raises:
        NoiseError: if `none`, which everything is compared with, is not among them.
    """
    labels = label(records)
    runs: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: (labels[record["row"]] != "none", labels[record["row"]])):
        runs[labels[record["row"]]].append(record)
    if "none" not in runs or not any(record["status"] == "ok" for record in runs["none"]):
        raise NoiseError("results must hold runs of none, which everything is compared with; compare again.")
    metrics = [("end", name) for name in _names(records)]
    metrics.insert(next((i for i, (_, name) in enumerate(metrics) if name == BEST), -1) + 1, ("best", BEST))
    drafts = [(row, when, name) for when, name in metrics for row in runs]
    found = [None if row == "none" else paired(_differences(runs, row, when, name)) for row, when, name in drafts]
    corrected = holm([each.p if each else None for each in found])
    lines = [
        _line(runs, row, f"{name} {when}", _values(runs[row], when, name), difference, p, BETTER.get(name))
        for (row, when, name), difference, p in zip(drafts, found, corrected, strict=True)
    ]
    return Summary(records[0]["recipe"]["name"], lines, dict(runs), _notes(records, labels))


def label(records: list[Record]) -> dict[str, str]:
    """Return a short name per row: the strategy's, and the arguments in which rows of that name differ."""
    rows = {record["row"]: record for record in records}
    named: dict[str, dict[str, Record]] = defaultdict(dict)
    for key, record in rows.items():
        named[record["control"] or record["noise"]["name"]][key] = record
    labels: dict[str, str] = {}
    for name, group in named.items():
        varying = [
            argument
            for argument in next(iter(group.values()))["noise"]
            if len({str(record["noise"].get(argument)) for record in group.values()}) > 1
        ]
        for key, record in group.items():
            told = "".join(f" {argument}={_spell(record['noise'].get(argument))}" for argument in varying)
            version = f" version {record['version']}" if len({r["version"] for r in group.values()}) > 1 else ""
            labels[key] = name + told + version
    return labels


def _spell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _names(records: list[Record]) -> list[str]:
    """Return all metrics of all runs; the test loss comes first."""
    names = {name for record in records for name in _point(record, "end") if name not in ("step", "epoch")}
    return sorted(names, key=lambda name: (name != BEST, name))


def _point(record: Record, when: str) -> dict[str, float | None]:
    """Return what was measured at the end, by the evaluation too, or at the best point."""
    return {**(record.get(when) or {}), **((record.get("evaluation") or {}) if when == "end" else {})}


def _values(runs: list[Record], when: str, name: str) -> dict[int, float]:
    """Return a metric by seed; a run that failed, or did not measure it, is left out."""
    points = {record["seed"]: _point(record, when) for record in runs if record["status"] == "ok"}
    values = {seed: point.get(name) for seed, point in points.items()}
    return {seed: value for seed, value in values.items() if value is not None}


def _differences(runs: dict[str, list[Record]], row: str, when: str, name: str) -> list[float]:
    ours, none = _values(runs[row], when, name), _values(runs["none"], when, name)
    return [ours[seed] - none[seed] for seed in sorted(ours.keys() & none.keys())]


def _line(
    runs: dict[str, list[Record]],
    row: str,
    metric: str,
    values: dict[int, float],
    difference: Difference | None,
    corrected: float | None,
    better: str | None,
) -> Line:
    mean = fmean(values.values()) if values else None
    told = "-" if difference is None else verdict(difference, corrected, better)
    failed = sum(record["status"] != "ok" for record in runs[row])
    told += f" ({failed} of {len(runs[row])} seeds failed)" if failed else ""
    compute = _ratio(runs, row, lambda record: record["passes"] * record["tokens"])
    time = _ratio(runs, row, lambda record: record["wall_s"])
    passes = runs[row][0]["passes"]
    return Line(row, metric, len(values), len(runs[row]), mean, difference, corrected, told, passes, compute, time)


def _ratio(runs: dict[str, list[Record]], row: str, cost: Any) -> float | None:
    """Return a cost relative to `none`, over the seeds that both have."""
    ours, none = ({r["seed"]: cost(r) for r in runs[name] if r["status"] == "ok"} for name in (row, "none"))
    both = ours.keys() & none.keys()
    whole = sum(none[seed] for seed in both)
    return sum(ours[seed] for seed in both) / whole if whole else None


def _notes(records: list[Record], labels: dict[str, str]) -> list[str]:
    notes = [
        f"{labels[record['row']]}, seed {record['seed']}, failed: {record.get('error') or 'no reason given'}"
        for record in records
        if record["status"] != "ok"
    ]
    for what in ("versions", "device", "share"):
        values = {str(record.get(what)) for record in records if record["status"] == "ok"}
        if what == "share":
            if values != {"1.0"}:
                notes.append("Compute-matched: a strategy of k passes trained for 1/k of the steps.")
        elif len(values) > 1:
            notes.append(f"Runs differ in {what}: {'; '.join(sorted(values))}. Compare again for a fair table.")
    return notes
