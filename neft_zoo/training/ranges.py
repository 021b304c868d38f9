"""The accepted ranges of numeric options in a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from neft_zoo.errors import NoiseError, shown


@dataclass(frozen=True)
class Range:
    """The accepted range of an option.

    Attributes:
        low: the lower bound.
        high: the upper bound, excluded.
        above: whether the lower bound is excluded.
    """

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and value < self.high

    def __str__(self) -> str:
        lower = f"{'>' if self.above else '>='} {self.low:g}"
        return f"a finite number {lower}" if math.isinf(self.high) else f"a number {lower} and < {self.high:g}"


COUNT, NOT_NEGATIVE, SHARE = Range(1), Range(0), Range(0, 1)
RANGES = {
    "max_length": COUNT,
    "per_device_train_batch_size": COUNT,
    "per_device_eval_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "num_train_epochs": Range(0, above=True),
    "logging_steps": NOT_NEGATIVE,
    "eval_steps": NOT_NEGATIVE,
    "save_steps": NOT_NEGATIVE,
    "dataloader_num_workers": NOT_NEGATIVE,
    "seed": NOT_NEGATIVE,
    "learning_rate": NOT_NEGATIVE,
    "warmup_steps": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "max_grad_norm": NOT_NEGATIVE,
    "adam_beta1": SHARE,
    "adam_beta2": SHARE,
    "adam_epsilon": NOT_NEGATIVE,
    "label_smoothing_factor": SHARE,
    "neftune_noise_alpha": Range(0, above=True),
    "lora_r": COUNT,
    "lora_alpha": Range(0, above=True),
    "lora_dropout": SHARE,
    "test_share": Range(0, 1, above=True),
    "test_split_size": Range(0, above=True),
}


def check_ranges(values: Mapping[str, object]) -> None:
    """Raise for the first number outside the range of its option; None is not checked.

    Raises:
        NoiseError: with option, value and range.
    """
    for name, accepted in RANGES.items():
        value = values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value not in accepted:
            raise NoiseError(f"{name} must be {accepted}, got {shown(value)}.")
