"""The record of one training run, and its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, TypeVar, cast

from neft_zoo.compare.measurement import Measurement

T = TypeVar("T")
When = Literal["end", "best"]
FORMAT = 1
LENGTHS = ("num_train_epochs", "max_steps")  # options for the length of training
REQUIRED = ("format", "key", "recipe", "config", "noise", "control", "row", "seed", "status", "history", "versions")


@dataclass(frozen=True)
class RecipeId:
    """Name of a recipe, and the hash of its options and its local model and data."""

    name: str
    hash: str


@dataclass
class RunRecord:
    """Everything that is stored of one run; unknown fields are None, and left out of the JSON.

    Attributes:
        key: hash of everything that determines the results.
        recipe: the compared recipe.
        noise: name and all arguments of the strategy.
        version: of the strategy's entry.
        control: name of the control recipe, "" for a strategy.
        overrides: trainer options that the row changes.
        row: hash of noise, version, control and overrides; rows are paired by seed.
        seed: of data order, dropout and noise.
        passes: forward passes per batch.
        share: multiple of the recipe's steps to train, above 0.
        status: failed until the run has succeeded.
        config: options shared by all runs of the comparison.
        history: all evaluations, in order.
        versions: of the libraries that determine the results.
        command: command line of the comparison.
        commit: of the git checkout; None outside of one.
        platform: operating system.
        python: version of Python.
        node: address of the Ray node.
        steps: optimizer steps of the whole run.
        device: name of the device.
        cpu_s: CPU time of training in seconds, without evaluation.
        wall_s: wall-clock time of training in seconds, without evaluation.
        measuring_s: wall-clock time of the evaluations in seconds.
        training_loss: step and logged loss.
        tokens: number of tokens trained on; a token counts once, independent of the number of passes.
        end: the last evaluation.
        best: the evaluation with the lowest test loss.
        record_losses: of the test records, in the order of measurement; "tokens": graded tokens, "end" and "best":
            mean loss at these evaluations in nats per graded token.
        evaluation: numbers of `neft-zoo evaluate` for the trained model; None for those that could not be measured.
        error: why the run failed.
        log: file with the output of a run that ended unexpectedly.
        peak_memory_mb: highest memory use in MiB, of the GPU if there is one, else of the process.
        margins: the recipe's margins of practical equivalence, by metric.
    """

    key: str
    recipe: RecipeId
    noise: dict[str, object]
    version: int
    control: str
    overrides: dict[str, object]
    row: str
    seed: int
    passes: int
    share: float
    status: Literal["ok", "failed"]
    config: dict[str, object]
    history: list[Measurement]
    versions: dict[str, str]
    command: str | None = None
    commit: str | None = None
    platform: str | None = None
    python: str | None = None
    node: str | None = None
    steps: int | None = None
    device: str | None = None
    cpu_s: float | None = None
    wall_s: float | None = None
    measuring_s: float | None = None
    training_loss: list[list[float]] | None = None
    tokens: int | None = None
    end: Measurement | None = None
    best: Measurement | None = None
    record_losses: dict[str, list[float]] | None = None
    evaluation: dict[str, float | None] | None = None
    error: str | None = None
    log: str | None = None
    peak_memory_mb: float | None = None
    margins: dict[str, float] | None = None
    format: int = field(default=FORMAT)

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def name(self) -> str:
        """Name of the control recipe, or of the strategy."""
        return self.control or str(self.noise["name"])

    @property
    def is_other_length(self) -> bool:
        """Whether it is plain training of another length than the recipe's, with its own schedule."""
        if self.noise["name"] != "none":
            return False
        # In `neft-zoo tune`, plain training has the overrides of the best trial, but no control's name.
        return bool(self.overrides) and set(self.overrides) <= {*LENGTHS} if self.control else self.share != 1.0

    def at(self, when: When) -> Measurement | None:
        """Return the last evaluation, or the one with the lowest test loss."""
        return self.end if when == "end" else self.best

    def to_dict(self) -> dict[str, object]:
        """Return the record as JSON values."""
        values: dict[str, object] = {"format": self.format}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Measurement):
                value = value.to_dict()
            elif isinstance(value, RecipeId):
                value = {"name": value.name, "hash": value.hash}
            elif each.name == "history":
                value = [point.to_dict() for point in self.history]
            if value is not None:
                values[each.name] = value
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> RunRecord:
        """Return the record from JSON values; unknown keys are ignored.

        Raises:
            KeyError: if a key of `REQUIRED` is missing.
        """
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        missing = [name for name in REQUIRED if name not in known]
        if missing:
            raise KeyError(missing[0])
        recipe = cast("dict[str, str]", known["recipe"])
        known["recipe"] = RecipeId(recipe["name"], recipe["hash"])
        known["history"] = [
            Measurement.from_dict(point) for point in cast("list[dict[str, object]]", known["history"])
        ]
        for name in ("end", "best"):
            point = cast("dict[str, object] | None", known.get(name))
            known[name] = None if point is None else Measurement.from_dict(point)
        defaults = {"version": 1, "overrides": {}, "passes": 1, "share": 1.0}
        return cls(**cast("dict[str, object]", {**defaults, **known}))  # pyright: ignore[reportArgumentType]


def needed(value: T | None) -> T:
    """Return a field that every successful run has."""
    assert value is not None, "a run that ended well has all measurements"
    return value
