"""Where in its training a `transformers.Trainer` is."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from neft_zoo.noise.batch import step_key
from neft_zoo.training.engine_internals import data_parallel_rank

if TYPE_CHECKING:
    from accelerate.state import AcceleratorState
    from transformers import TrainerState, TrainingArguments


class StepOf(TypedDict):
    """The key of an optimizer step, and the fraction of training that is done."""

    key: int
    progress: float


def step_of(args: TrainingArguments, processes: AcceleratorState, state: TrainerState) -> StepOf:
    """Return what a noise draws on in the optimizer step that a trainer is in."""
    key = step_key(args.seed, data_parallel_rank(processes), state.global_step)
    return {"key": key, "progress": progress_of(state)}


def progress_of(state: TrainerState) -> float:
    """Return the fraction of training that is done, in [0, 1]."""
    return min(1.0, state.global_step / max(1, state.max_steps))
