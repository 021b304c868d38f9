"""The optimizer step and progress of a `transformers.Trainer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from neft_zoo.noise.batch import step_key
from neft_zoo.training.engine_internals import data_parallel_rank

if TYPE_CHECKING:
    from accelerate.state import AcceleratorState
    from transformers import TrainerState, TrainingArguments


class StepOf(TypedDict):
    """The random key of an optimizer step, and the fraction of training done."""

    key: int
    progress: float


def step_of(args: TrainingArguments, processes: AcceleratorState, state: TrainerState) -> StepOf:
    """Return the key and progress of a trainer's current optimizer step, as arguments of a noise draw."""
    key = step_key(args.seed, data_parallel_rank(processes), state.global_step)
    return {"key": key, "progress": progress_of(state)}


def progress_of(state: TrainerState) -> float:
    """Return the fraction of training done, in [0, 1]."""
    return min(1.0, state.global_step / max(1, state.max_steps))
