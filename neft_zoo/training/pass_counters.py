"""PassCounters: lets a trainer count tokens and metrics once for a step of several passes."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from transformers import Trainer

# A trainer has few metrics; a larger mapping holds something else, such as a value for every prompt.
FEW = 1000


class PassCounters:
    """The counters and metrics of a trainer before a step's first pass.

    Trainers count tokens and log metrics inside of their loss under various names: as numbers on the trainer or its
    state, and in mappings that hold lists of numbers or summing metrics. All of these are saved.
    TRL: https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/sft_trainer.py
    Axolotl: https://github.com/axolotl-ai-cloud/axolotl/blob/v0.19.0/src/axolotl/core/trainers/base.py
    ms-swift: https://github.com/modelscope/ms-swift/blob/v4.6.0/swift/trainers/mixin.py

    Args:
        trainer: the trainer, before it computes a loss.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._counts = [_Counts(vars(owner), inside=False) for owner in (trainer, trainer.state)]

    def rewind(self) -> None:
        """Restore the counters to their values before the step's first pass."""
        for counts in self._counts:
            counts.restore()


class _Counts:
    """The numbers in a mapping, and the lengths of the lists in nested mappings."""

    def __init__(self, owner: MutableMapping[str, Any], inside: bool = True) -> None:
        self._owner, self._names = owner, set(owner)
        self._numbers = {name: _copy(value) for name, value in owner.items() if _is_number(value)}
        lists = {name: value for name, value in owner.items() if isinstance(value, list)} if inside else {}
        self._lengths = {name: len(value) for name, value in lists.items()}
        mappings = [value for value in owner.values() if isinstance(value, dict) and len(value) <= FEW]
        mappings += [vars(value) for value in owner.values() if inside and _is_metric(value)]
        self._inner = [_Counts(value) for value in mappings]
        self._inside = inside

    def restore(self) -> None:
        for name in [name for name, value in self._owner.items() if name not in self._names and _is_count(value)]:
            del self._owner[name]
        self._owner.update((name, _copy(value)) for name, value in self._numbers.items())
        for name, value in self._owner.items():
            if self._inside and isinstance(value, list):
                del value[self._lengths.get(name, 0) :]
        for counts in self._inner:
            counts.restore()


def _is_number(value: object) -> bool:
    return type(value) in (int, float) or (
        isinstance(value, Tensor) and value.numel() == 1 and not value.requires_grad
    )


def _is_metric(value: object) -> bool:
    return all(callable(getattr(value, name, None)) for name in ("update", "compute", "reset"))


def _is_count(value: object) -> bool:
    counts = isinstance(value, dict) and bool(value) and all(map(_is_count, value.values()))
    return counts or _is_number(value) or _is_metric(value)


def _copy(value: Any) -> Any:
    """Return a copy of a number that later in-place additions do not change."""
    return value.clone() if isinstance(value, Tensor) else value
