"""The search space of `neft-zoo tune`: arguments of a strategy and options of the trainer, with their values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import yaml
from trl.trainer.model_config import ModelConfig

from neft_zoo import registry
from neft_zoo.compare.rows import MEASURED_ON, NOT_OURS, Row
from neft_zoo.config.options import convert
from neft_zoo.errors import NoiseError, did_you_mean, shown
from neft_zoo.evaluation.strength_sweep import strength_of
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.sft_config import NoiseSFTConfig

if TYPE_CHECKING:
    from optuna import Trial

OPTIONS = {
    field.name: field.type
    for kind in (ModelConfig, NoiseSFTConfig)
    for field in fields(kind)
    if field.name not in NOT_OURS | MEASURED_ON
}
DEFAULT_SPAN = 5.0  # without --search, the strength from 1/5 to 5 times the recipe's


@dataclass(frozen=True)
class Dimension:
    """One dimension of the search space.

    Attributes:
        name: argument of the strategy, or option of the trainer.
        low: lower bound; None if `choices` are given.
        high: upper bound.
        log: whether to sample on a log scale.
        whole: whether to sample only whole numbers.
        choices: all values.
    """

    name: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False
    choices: tuple[object, ...] = ()

    @property
    def ends(self) -> tuple[object, ...]:
        """The extreme values, all of which must be valid for the search to make sense."""
        return self.choices or (self.low, self.high)

    def suggest(self, trial: Trial) -> object:
        """Return the value for an Optuna trial."""
        if self.choices:
            return json.loads(trial.suggest_categorical(self.name, [json.dumps(choice) for choice in self.choices]))
        assert self.low is not None and self.high is not None, "without choices there are two ends"
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


def read_dimension(text: str, strategy: Strategy) -> Dimension:
    """Read a dimension: `name=low:high`, `name=low:high:log` or `name=value,value`.

    Raises:
        NoiseError: if it is malformed, or the name is neither an argument nor an option.
    """
    name, _, values = text.partition("=")
    hints = registry.entry(strategy.name).hints()
    if name not in strategy.arguments and name not in OPTIONS:
        hint = did_you_mean(name, [*strategy.arguments, *OPTIONS])
        raise NoiseError(
            f"search must name an argument of {strategy.name} or a trainer option, got {shown(name)}{hint}"
        )
    low, colon, rest = values.partition(":")
    high, _, scale = rest.partition(":")
    try:
        numbers = (float(low), float(high))
    except ValueError:
        return Dimension(name, choices=_choices(text, values))
    whole = hints[name] is int if name in strategy.arguments else OPTIONS[name] in (int, int | None)
    if not (colon and scale in ("", "log") and all(map(math.isfinite, numbers)) and numbers[0] < numbers[1]):
        raise _malformed(text)
    if scale and numbers[0] <= 0:
        raise NoiseError(f"search on a log scale must begin above 0, got {shown(text)}.")
    if whole and any(number != int(number) for number in numbers):
        raise NoiseError(f"search of {name} must have whole numbers for its ends, got {shown(text)}.")
    ends = tuple(map(int, numbers)) if whole else numbers
    return Dimension(name, *ends, log=scale == "log", whole=whole)


def _choices(text: str, values: str) -> tuple[object, ...]:
    try:
        choices = yaml.safe_load(f"[{values}]")
        json.dumps(choices)
    except (yaml.YAMLError, TypeError):
        choices = None
    if not choices:
        raise _malformed(text)
    return tuple(choices)


def _malformed(text: str) -> NoiseError:
    return NoiseError(f"search must be NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=VALUE,VALUE, got {shown(text)}.")


def make_space(texts: Sequence[str], strategy: Strategy) -> list[Dimension]:
    """Return all dimensions, by default the strategy's strength around its value.

    Raises:
        NoiseError: if one is invalid or given twice, or if the default strategy has no single strength.
    """
    space = [read_dimension(text, strategy) for text in texts] or [_default(strategy)]
    names = [dimension.name for dimension in space]
    if len(set(names)) < len(names):
        raise NoiseError(f"search must name everything once, got {', '.join(names)}.")
    for dimension in space:
        for value in dimension.ends:
            row_of(strategy, {dimension.name: value})
    return space


def _default(strategy: Strategy) -> Dimension:
    message = f"search must be given for {strategy.name}, whose strength is no single number."
    try:
        name = strength_of(strategy)
    except NoiseError:
        raise NoiseError(message) from None
    value = strategy.arguments[name]
    if not isinstance(value, int | float):
        raise NoiseError(message)
    if value <= 0:
        raise NoiseError(f"search must be given for {strategy.name} of {name} 0, got nothing.")
    return Dimension(name, value / DEFAULT_SPAN, value * DEFAULT_SPAN, log=True)


def row_of(strategy: Strategy, values: Mapping[str, object]) -> Row:
    """Return the row for these values of a strategy's arguments and trainer options."""
    arguments = {name: value for name, value in values.items() if name in strategy.arguments}
    overrides = convert({name: value for name, value in values.items() if name not in strategy.arguments})
    made = registry.make({**strategy.to_dict(), **arguments})
    return Row(made.to_dict(), made.version, made.objective.passes, overrides=overrides)
