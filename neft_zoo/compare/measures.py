"""What is measured at every evaluation, on the clean model and the same terms for every row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

Measure = Callable[[Any], dict[str, float]]


def losses(trainer: Any) -> dict[str, float]:
    """Return the mean loss of every evaluation set, in nats per graded token.

    It is the plain cross-entropy whatever the trainer's own loss is: a control with soft targets or another grading
    would otherwise be measured in other units. Tokens weigh alike, whatever batch they are in.
    """
    found: dict[str, float] = {}
    for name in trainer.eval_dataset:
        total, count = 0.0, 0
        for batch in trainer.get_eval_dataloader(name):
            batch = trainer._prepare_inputs(batch)
            labels = batch.pop("labels")[:, 1:]
            with torch.no_grad(), trainer.accelerator.autocast():
                logits = trainer.model(**batch, use_cache=False).logits[:, :-1]
            graded = labels != -100
            total += functional.cross_entropy(logits[graded].float(), labels[graded], reduction="sum").item()
            count += int(graded.sum())
        found[f"{name}_loss"] = total / count if count else float("nan")
    return found


# A further metric is one more function from a trainer to named numbers.
MEASURES: tuple[Measure, ...] = (losses,)


def measure(trainer: Any) -> dict[str, float]:
    """Return all metrics, in evaluation mode."""
    training = trainer.model.training
    trainer.model.eval()
    try:
        return {name: value for each in MEASURES for name, value in each(trainer).items()}
    finally:
        trainer.model.train(training)
