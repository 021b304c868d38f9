"""Experiments: rows that are compared with `none`, and their cells, one per metric and point."""

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
# Of a run's best evaluation only what it is best in is shown: the rest is not at its best there.
CHOSEN_BY = "test_loss"


@dataclass(frozen=True)
class Cell:
    """A metric of a row, at the end or at the best evaluation.

    Attributes:
        mean: over the seeds; None where no run measured it.
        seeds: runs that ended well and measured it.
        baseline: mean of the baseline over the seeds that both have; None for `none` itself.
        difference: paired, to the baseline; None for `none` itself.
        verdict: on the difference; None for `none` itself, and for costs, which are not tested.
    """

    mean: float | None
    seeds: int
    baseline: float | None = None
    difference: Difference | None = None
    verdict: Verdict | None = None


@dataclass
class Row:
    """What was compared: a strategy with its arguments, plain training of another length, or a control.

    Attributes:
        label: the strategy's name and the arguments that tell its rows apart, or the control's name.
        entry: name in the registry; None for a control and for plain training of another length.
        runs: file and record of every run, by seed.
        baseline: the row that this one is compared with: `none`, or plain training for as many steps; None for `none`.
        is_matched: whether the baseline trained for as many steps, where the comparison is at equal compute.
        cells: by metric and point; none where no run measured it.
        compute: tokens times passes, relative to `none`; None without a common seed.
        time: training time, in CPU time on a CPU, relative to `none`; None likewise.
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
        """Records of the runs that ended well."""
        return [record for _, record in self.runs if record.ok]

    @property
    def arguments(self) -> dict[str, object]:
        return self.runs[0][1].noise

    @property
    def passes(self) -> int:
        return self.runs[0][1].passes

    @property
    def is_shorter(self) -> bool:
        return self.runs[0][1].is_shorter

    @property
    def steps(self) -> int | None:
        """Optimizer steps that were trained; None as long as no run has ended well."""
        return next((record.steps for record in self.records), None)

    @property
    def family(self) -> str:
        if self.entry:
            return registry.make(self.entry).family  # an older version may have had other arguments
        return "length" if self.is_shorter else "control"

    @property
    def question(self) -> str:
        """The question that a row helps to answer; verdicts are corrected inside it.

        Which strategy helps at its defaults, which values of one strategy's arguments, which length of plain training,
        which control.
        """
        if self.entry is None:
            return "lengths" if self.is_shorter else "controls"
        try:
            default = registry.make(self.entry).to_dict() == registry.make(self.arguments).to_dict()
        except NoiseError:  # an entry of another package, or of another version
            default = False
        return "defaults" if default else self.entry

    @property
    def failed(self) -> int:
        return len(self.runs) - len(self.records)

    def values(self, name: str, when: When) -> dict[int, float]:
        """Return a metric by seed, of the runs that ended well and measured it."""
        measured = {record.seed: values(record, when).get(name) for record in self.records}
        return {seed: value for seed, value in measured.items() if value is not None}


@dataclass(frozen=True)
class Experiment:
    """Rows that can be compared: one recipe at one budget.

    Attributes:
        name: of the recipe, or of the data set that it trains on.
        rows: `none` first, controls last.
        config: options that all runs share.
        notes: failed runs, and in what runs differ that must not.
        margins: differences without practical meaning that the recipe states, by metric.
    """

    name: str
    rows: list[Row]
    config: Mapping[str, object]
    notes: list[str] = field(default_factory=list)
    margins: Mapping[str, float] = field(default_factory=dict)

    def margin(self, name: str) -> float:
        """Return the size up to which a difference in a metric makes none in practice."""
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
        """Metrics and points that any row has, in the order of the table of metrics."""
        known = {column for row in self.rows for column in row.cells}
        names = ordered({name for name, _ in known})
        return [(name, when) for name in names for when in POINTS if (name, when) in known and is_shown(name, when)]

    @property
    def seeds(self) -> int:
        return max(len(row.runs) for row in self.rows)

    def find(self, entry: str, **arguments: object) -> Row | None:
        """Return the row of an entry with these arguments and otherwise its defaults."""
        wanted = registry.make(entry, **arguments).to_dict()
        return next((row for row in self.rows if row.entry and row.arguments == wanted), None)


def is_shown(name: str, when: When) -> bool:
    """Return whether tables have a column for a metric at a point."""
    return when == "end" or name == CHOSEN_BY
