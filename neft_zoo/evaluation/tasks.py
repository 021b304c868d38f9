"""Benchmark tasks, through EleutherAI's lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from neft_zoo.errors import NoiseError


def run_tasks(
    model: Any,
    tokenizer: Any,
    names: Sequence[str],
    *,
    folder: Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
) -> dict[str, dict[str, float]]:
    """Return the harness's metrics of each task.

    Args:
        model: a transformers or PEFT model.
        tokenizer: the model's.
        names: of tasks or groups.
        folder: further tasks, as YAML files.
        limit: records of each task; None for all.
        batch_size: records a forward pass.

    Raises:
        NoiseError: if the harness is missing, the folder is, or a task is not known to it.
    """
    manager = find_tasks(names, folder)
    run, wrap, _ = harness()
    wrapped = wrap(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    found = run(model=wrapped, tasks=list(names), task_manager=manager, limit=limit)
    return {task: _numbers(metrics) for task, metrics in (found or {})["results"].items()}


def find_tasks(names: Sequence[str], folder: Path | None = None) -> Any:
    """Return the harness's list of tasks, with those of a folder, if all names are on it.

    Raises:
        NoiseError: if the harness is missing, the folder is, or a task is not known to it.
    """
    if folder is not None and not folder.is_dir():
        raise NoiseError(f"task_folder must be an existing folder, got {str(folder)!r}.")
    manager = _manager(folder)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise NoiseError(f"tasks must be known to lm-evaluation-harness or lie in task_folder, got {unknown[0]!r}.")
    return manager


@lru_cache(1)
def _manager(folder: Path | None) -> Any:
    """Return the list; reading its thousands of files takes seconds."""
    return harness()[2](include_path=None if folder is None else str(folder))


def harness() -> tuple[Any, Any, Any]:
    """Return what is used of the harness: its call, its model class and its list of tasks.

    Raises:
        NoiseError: if it is not installed.
    """
    try:
        from lm_eval import simple_evaluate  # type: ignore[import-not-found]
        from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]
        from lm_eval.tasks import TaskManager  # type: ignore[import-not-found]
    except ImportError:
        raise NoiseError("tasks need lm-evaluation-harness: pip install 'neft-zoo[eval]'.") from None
    return simple_evaluate, HFLM, TaskManager


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Keep the numbers; the harness mixes names, and N/A for what it did not compute, among them."""
    kept = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return {name.removesuffix(",none"): float(value) for name, value in kept.items()}
