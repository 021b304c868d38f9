"""The rows of a comparison: strategies and their argument values, lengths of plain training, and controls."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from neft_zoo import registry
from neft_zoo.compare.fingerprint import digest
from neft_zoo.config import recipe
from neft_zoo.errors import NoiseError

LONGEST = 10  # times the recipe's steps that plain training may take
USUAL_LENGTHS = ("1/4", "1/2")  # of plain training in every comparison, unless others are asked for

# Options for output and logging do not change a run's results, and are set by the runner.
NOT_OURS = frozenset(
    "disable_tqdm extends hub_model_id hub_strategy load_best_model_at_end logging_dir noise output_dir "
    "push_to_hub report_to resume_from_checkpoint run_name save_steps save_strategy save_total_limit seed".split()
)
# Options that decide which tokens losses are measured on, which all rows must share.
MEASURED_ON = frozenset(
    "assistant_only_loss chat_template_path dataset_config dataset_name dataset_test_split dataset_text_field "
    "datasets eos_token max_length test_share".split()
)


@dataclass(frozen=True)
class Row:
    """A compared row: a strategy, plain training of another length, or a control without noise.

    Attributes:
        noise: name and all arguments, as `registry.make` reads them back.
        version: of the entry.
        passes: forward passes per batch.
        control: name of the control recipe, "" for a strategy.
        overrides: trainer options that the control changes.
        length: multiple of the recipe's steps to train, with its own schedule.
    """

    noise: dict[str, object]
    version: int
    passes: int
    control: str = ""
    overrides: dict[str, object] = field(default_factory=dict)
    length: Fraction = Fraction(1)

    @property
    def name(self) -> str:
        return self.control or str(self.noise["name"])

    @property
    def key(self) -> str:
        length = [] if self.length == 1 else [str(self.length)]  # keeps results from before lengths existed valid
        return digest([self.noise, self.version, self.control, self.overrides, *length])


@dataclass(frozen=True)
class Setting:
    """The values of one argument, for strategies and controls that match a shell pattern."""

    pattern: str
    argument: str
    values: list[object]


def row_of(noise: str | Mapping[str, object]) -> Row:
    """Return the row of a strategy."""
    strategy = registry.make(noise)
    return Row(strategy.to_dict(), strategy.version, strategy.objective.passes)


def select(patterns: Iterable[str]) -> list[str]:
    """Return the names of strategies that match names or shell patterns.

    Raises:
        NoiseError: if a pattern matches none.
    """
    selected: list[str] = []
    for pattern in patterns:
        matching = fnmatch.filter(registry.names(), pattern)
        if not matching and not set(pattern) & set("*?["):
            registry.entry(pattern)  # suggests similar names
        if not matching:
            raise NoiseError(f"strategies must match a name, got {pattern!r}; neft-zoo list shows all of them.")
        selected += matching
    return list(dict.fromkeys(selected))


def rows_of(chosen: Sequence[str | Mapping[str, object]], settings: Sequence[Setting]) -> list[Row]:
    """Return one row per strategy and combination of its argument values."""
    noises: list[Mapping[str, object]] = [{"name": item} if isinstance(item, str) else item for item in chosen]
    return [row_of({**noise, **values}) for noise in noises for values in combinations(str(noise["name"]), settings)]


def combinations(name: str, settings: Sequence[Setting]) -> list[dict[str, object]]:
    """Return all combinations of the values that the settings give to a strategy or control.

    Raises:
        NoiseError: if an argument is given twice.
    """
    given = [each for each in settings if fnmatch.fnmatch(name, each.pattern)]
    grid = {each.argument: each.values for each in given}
    for argument in grid:
        if sum(each.argument == argument for each in given) > 1:
            raise NoiseError(f"set must give {name}.{argument} once, with all its values, got it twice.")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def read_setting(text: str, names: Iterable[str]) -> Setting:
    """Read a setting such as `strategy.argument=value,value`.

    Raises:
        NoiseError: if it is malformed, or names none of the strategies and controls.
    """
    target, equals, listed = text.partition("=")
    pattern, dot, argument = target.partition(".")
    try:
        values = yaml.safe_load(f"[{listed}]")
    except yaml.YAMLError:
        values = None
    if not (equals and dot and argument and values):
        raise NoiseError(f"set must be strategy.argument=value,value, got {text!r}.")
    if not fnmatch.filter(list(names), pattern):
        raise NoiseError(f"set must name a chosen strategy or control, got {pattern!r} in {text!r}.")
    return Setting(pattern, argument, values)


def control_rows(name: str, loaded: recipe.Recipe, settings: Sequence[Setting] = ()) -> list[Row]:
    """Return the rows of a control recipe: its options, and those of settings, replace the compared recipe's.

    Raises:
        NoiseError: if the control changes nothing, or does not match the recipe.
    """
    control, path = recipe.load(name), recipe.find(name)
    own = {key for key, where in control.origin.items() if where.rpartition(" line ")[0] == str(path)}
    base = {key: control.values[key] for key in sorted(own - NOT_OURS)}
    if not base:
        raise NoiseError(f"controls must be recipes that change an option, got {name!r}.")
    for key in own & {*recipe.NOISES}:
        if control.values.get(key) not in (None, False, 0, "none"):
            raise NoiseError(f"controls must be plain training, got {name!r} with {key}.")
    if "use_peft" in base and base["use_peft"] != bool(loaded.values.get("use_peft")):
        raise NoiseError(f"control {name!r} needs use_peft: {str(base['use_peft']).lower()} in the recipe.")
    none, stem = row_of("none"), Path(name).stem
    values = combinations(stem, settings)
    for option in NOT_OURS & values[0].keys():
        raise NoiseError(f"set must name an option that a comparison leaves alone, got {stem}.{option}.")
    for option in sorted(MEASURED_ON & {*base, *values[0]}):
        raise NoiseError(f"controls must leave alone what losses are measured on, got {name!r} with {option}.")
    # Late: without controls, the process from which runs are forked starts before any large import.
    from neft_zoo.config.options import convert

    grid = [convert({**base, **each}) for each in values]
    for overrides in grid:
        _check_changes(name, overrides, loaded)
    return [replace(none, control=stem, overrides=dict(sorted(overrides.items()))) for overrides in grid]


def _check_changes(name: str, overrides: Mapping[str, object], loaded: recipe.Recipe) -> None:
    """Raise if no option has an effect, so that all runs would be identical to those of `none`."""
    from neft_zoo.config.options import CONFIGS, convert

    defaults = {each.name: each.default for kind in CONFIGS for each in fields(kind)}
    own = convert({key: loaded.values.get(key, defaults.get(key)) for key in [*overrides, "max_steps", "use_peft"]})
    ignored = _ignored(overrides, {**own, **overrides})
    if any(own[key] != value for key, value in overrides.items() if key not in ignored):
        return
    options = ", ".join(f"{key} {value}" for key, value in overrides.items())
    reason = " and ".join(ignored.values()) or f"{options} already"
    raise NoiseError(f"controls must change an option of the recipe, got {name!r}: the recipe has {reason}.")


def _ignored(names: Iterable[str], values: Mapping[str, object]) -> dict[str, str]:
    """Return the options that have no effect beside the values of others, and these values."""
    steps: Any = values["max_steps"]
    found = {"num_train_epochs": f"max_steps {steps}"} if steps > 0 else {}
    if not values["use_peft"]:
        found |= {name: "no adapter" for name in names if name.startswith("lora_")}
    return {name: reason for name, reason in found.items() if name in names}


def length_rows(lengths: Iterable[Fraction]) -> list[Row]:
    """Return rows of plain training for multiples of the recipe's steps."""
    return [replace(row_of("none"), length=length) for length in lengths if length != 1]


def read_lengths(texts: Sequence[str] | None, recipe_values: Mapping[str, object]) -> set[Fraction]:
    """Read multiples of the recipe's steps, such as `1/2`, `0.5` or `2`; None for the usual ones that leave a step.

    Raises:
        NoiseError: if one is not a number in (0, 10], or leaves no step of the recipe's `max_steps`.
    """
    steps, found = recipe_values.get("max_steps"), set()
    for text in USUAL_LENGTHS if texts is None else texts:
        length = _read_length(text)
        if not isinstance(steps, int) or steps < 1 or round(steps * length) >= 1:
            found.add(length)
        elif texts is not None:
            raise NoiseError(f"lengths must leave at least one of the recipe's {steps} max_steps, got {text!r}.")
    return found


def _read_length(text: str) -> Fraction:
    try:
        length = Fraction(text)
    except (ValueError, ZeroDivisionError):
        length = Fraction(0)
    if not 0 < length <= LONGEST:
        raise NoiseError(f"lengths must be multiples of the recipe's steps above 0 and up to {LONGEST}, got {text!r}.")
    return length
