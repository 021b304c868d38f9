"""Benchmark tasks, through EleutherAI's lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from neft_zoo.errors import NoiseError, did_you_mean, require

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HARNESS = "lm-evaluation-harness"


class TaskManager(Protocol):
    """The part of the harness's task list that is used here."""

    all_tasks: Sequence[str]


def run_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    *,
    folder: Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
) -> dict[str, dict[str, float]]:
    """Return the harness's metrics by task.

    Args:
        model: a transformers or PEFT model.
        tokenizer: the model's.
        names: of tasks or groups.
        folder: folder with further tasks, as YAML files.
        limit: records per task; None for all.
        batch_size: records per forward pass.

    Raises:
        NoiseError: if the harness or the folder is missing, or if a task is unknown.
    """
    manager = find_tasks(names, folder)
    wrapped = harness("lm_eval.models.huggingface").HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    evaluated = harness("lm_eval").simple_evaluate(model=wrapped, tasks=list(names), task_manager=manager, limit=limit)
    return {task: _numbers(metrics) for task, metrics in evaluated["results"].items()}


def find_tasks(names: Sequence[str], folder: Path | None = None) -> TaskManager:
    """Return the harness's task list, extended by the tasks of a folder.

    Raises:
        NoiseError: if the harness or the folder is missing, or if a task is unknown.
    """
    if folder is not None and not folder.is_dir():
        raise NoiseError(f"task_folder must be an existing folder, got {str(folder)!r}.")
    manager = _task_manager(folder)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        near = did_you_mean(unknown[0], manager.all_tasks)
        raise NoiseError(f"tasks must be known to {HARNESS} or lie in task_folder, got {unknown[0]!r}{near}")
    return manager


@lru_cache(1)  # reading its thousands of files takes seconds
def _task_manager(folder: Path | None) -> TaskManager:
    return harness("lm_eval.tasks").TaskManager(include_path=None if folder is None else str(folder))


def harness(module: str) -> ModuleType:
    """Return a module of the harness.

    Raises:
        NoiseError: if the harness is not installed.
    """
    return require(module, "a benchmark task", "eval")


def _numbers(metrics: Mapping[str, object]) -> dict[str, float]:
    """Return the numbers among a task's metrics, which also include names and N/A for skipped ones."""
    numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
    return {name.removesuffix(",none"): value for name, value in numbers.items()}
