"""Experiments: rows compared with `none`, and their cells, one per metric and point in training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from neft_zoo import registry
from neft_zoo.compare.metrics import metric, ordered, values
from neft_zoo.compare.records import RunRecord, When
from neft_zoo.compare.statistics import Difference
from neft_zoo.compare.verdicts import Verdict
from neft_zoo.errors import NoiseError

Column = tuple[str, When]  # a metric at the end, or at the best evaluation
POINTS: dict[When, str] = {"end": "at the end", "best": "at the best checkpoint"}
STEPS, COMPUTE = "equal steps", "equal compute"
# Of a run's best evaluation, only the metric that selects it is shown; other metrics are not at their best there.
CHOSEN_BY = "test_loss"


@dataclass(frozen=True)
class Cell:
    """A metric of a row, at the end or at the best evaluation.

    Attributes:
        mean: over the seeds; None if no run measured it.
        seeds: number of successful runs that measured it.
        baseline: mean of the baseline over the common seeds; None for `none` itself.
        difference: paired difference from the baseline; None for `none` itself.
        verdict: on the difference; None for `none` itself, and for costs, which are not tested.
    """

    mean: float | None
    seeds: int
    baseline: float | None = None
    difference: Difference | None = None
    verdict: Verdict | None = None

    @property
    def pairs(self) -> int:
        """Number of seeds behind the difference; for `none` itself, behind the mean."""
        return self.seeds if self.difference is None else len(self.difference.values)


@dataclass
class Row:
    """A compared row: a strategy with its arguments, plain training of another length, or a control.

    Attributes:
        label: the strategy's name with the arguments that distinguish its rows, or the control's name.
        entry: name in the registry; None for a control and for plain training of another length.
        runs: file and record of every run, by seed.
        baseline: the row to compare with: `none`, or plain training for as many steps; None for `none`.
        is_matched: whether the baseline trained for as many steps, as required in a compute-matched comparison.
        cells: by metric and point, if any run measured it.
        compute: tokens times passes, relative to `none`; None without a common seed, or if a run lacks it.
        time: training time (on a CPU, CPU time), relative to `none`; None as for compute.
    """

    label: str
    entry: str | None
    runs: list[tuple[Path, RunRecord]]
    baseline: Row | None = None
    is_matched: bool = True
    cells: dict[Column, Cell] = field(default_factory=dict)
    compute: float | None = None
    time: float | None = None

    @property
    def records(self) -> list[RunRecord]:
        """Records of the successful runs."""
        return [record for _, record in self.runs if record.ok]

    @property
    def arguments(self) -> dict[str, object]:
        return self.runs[0][1].noise

    @property
    def passes(self) -> int:
        return self.runs[0][1].passes

    @property
    def is_other_length(self) -> bool:
        return self.runs[0][1].is_other_length

    @property
    def steps(self) -> int | None:
        """Number of optimizer steps; None until a run has succeeded."""
        return next((record.steps for record in self.records), None)

    @property
    def family(self) -> str:
        if self.entry:
            return registry.make(self.entry).family  # an older version may have had other arguments
        return "length" if self.is_other_length else "control"

    @property
    def question(self) -> str:
        """The question that a row helps to answer; p values are corrected within it.

        Questions are: which strategy helps at its defaults, which values of one strategy's arguments, which length of
        plain training, and which control.
        """
        if self.entry is None:
            return "lengths" if self.is_other_length else "controls"
        try:
            default = registry.make(self.entry).to_dict() == registry.make(self.arguments).to_dict()
        except NoiseError:  # an entry of another package or version
            default = False
        return "defaults" if default else self.entry

    @property
    def failed(self) -> int:
        return len(self.runs) - len(self.records)

    @property
    def failures(self) -> str:
        """Say how many runs failed, "" if none did; a result stands on the others, and must say so."""
        return f" ({self.failed} of {len(self.runs)} seeds failed)" if self.failed else ""

    def values(self, name: str, when: When) -> dict[int, float]:
        """Return a metric by seed, for the successful runs that measured it."""
        measured = {record.seed: values(record, when).get(name) for record in self.records}
        return {seed: value for seed, value in measured.items() if value is not None}

    def minus(self, other: Row, name: str, when: When) -> list[float]:
        """Return the differences from another row in a metric, at the seeds that both measured."""
        ours, theirs = self.values(name, when), other.values(name, when)
        return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


@dataclass(frozen=True)
class Experiment:
    """Rows that can be compared: those of one recipe with one training budget.

    Attributes:
        name: of the recipe, or of its data set.
        rows: `none` first, controls last.
        config: options shared by all runs.
        notes: on failed runs, and on differences between runs that make a comparison unfair.
        margins: the recipe's margins of practical equivalence, by metric.
    """

    name: str
    rows: list[Row]
    config: Mapping[str, object]
    notes: list[str] = field(default_factory=list)
    margins: Mapping[str, float] = field(default_factory=dict)

    def margin(self, name: str) -> float:
        """Return the margin up to which differences in a metric have no practical meaning."""
        return self.margins.get(name, metric(name).margin)

    @property
    def budget(self) -> str:
        return COMPUTE if self.config.get("compute_matched") else STEPS

    @property
    def title(self) -> str:
        return f"{self.name}, {self.budget}"

    @property
    def key(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def none(self) -> Row:
        return self.rows[0]

    @property
    def columns(self) -> list[Column]:
        """Metrics and points that any row has, in the order of the metrics table."""
        known = {column for row in self.rows for column in row.cells}
        names = ordered({name for name, _ in known})
        return [(name, when) for name in names for when in POINTS if (name, when) in known and is_shown(name, when)]

    @property
    def seeds(self) -> int:
        return max(len(row.records) for row in self.rows)

    def find(self, entry: str, **arguments: object) -> Row | None:
        """Return the row of an entry with these arguments, and its defaults for all others."""
        wanted = registry.make(entry, **arguments).to_dict()
        return next((row for row in self.rows if row.entry and row.arguments == wanted), None)


def is_shown(name: str, when: When) -> bool:
    """Return whether tables have a column for a metric at a point."""
    return when == "end" or name == CHOSEN_BY
