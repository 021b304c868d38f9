"""The measures at every evaluation and at the end of a run, on the clean model and in the same way for every row."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from neft_zoo.compare.metrics import HALVES
from neft_zoo.evaluation import evaluate
from neft_zoo.evaluation.effect_rows import effect_numbers
from neft_zoo.evaluation.losses import graded_logits, last_hidden
from neft_zoo.evaluation.options import read_options
from neft_zoo.noise.batch import IGNORED, Batch
from neft_zoo.training.hf_internals import prepared_inputs

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Measure = Callable[[Any], dict[str, float]]
# Prefix of the names of evaluation sets, since TRL calls the training set "train".
MEASURED_ON = "on_"


@dataclass(frozen=True, eq=False)
class RecordLosses:
    """Summed losses of the records in a set, in the order of measurement.

    Attributes:
        sums: over the graded tokens of each record, in nats.
        counts: graded tokens of each record.
    """

    sums: Float[Tensor, " R"]
    counts: Int[Tensor, " R"]

    @property
    def means(self) -> Float[Tensor, " R"]:
        """Mean loss of each record in nats per graded token; 0 if it has none."""
        return self.sums / self.counts.clamp(min=1)

    def mean(self, chosen: slice = slice(None)) -> float:
        """Return the mean over the graded tokens of the chosen records; NaN if there are none."""
        return (self.sums[chosen].sum() / self.counts[chosen].sum()).item()


def losses(trainer: Any) -> dict[str, float]:
    """Return the mean loss of every evaluation set, and of both halves of the test set, in nats per graded token.

    It is the plain cross-entropy, independent of the trainer's own loss: a control with soft targets or other grading
    would otherwise be measured in other units. Every token has the same weight, independent of its batch. The set is
    sorted by length, and every second record is in the half that selects checkpoints and lengths.
    """
    means: dict[str, float] = {}
    for name in trainer.eval_dataset:
        kind = name.removeprefix(MEASURED_ON)
        trainer.record_losses[kind] = records = _record_losses(trainer, name)
        means[f"{kind}_loss"] = records.mean()
        halves = [records.mean(slice(half, None, 2)) for half in (0, 1)]
        if kind == "test" and not any(map(math.isnan, halves)):  # a set of one record has an empty half
            means |= zip(HALVES, halves, strict=True)
    return means


def _record_losses(trainer: Any, name: str) -> RecordLosses:
    sums, counts, lengths, is_packed = [], [], [], False
    for batch in trainer.get_eval_dataloader(name):
        batch = prepared_inputs(trainer, batch)
        tokens = Batch.from_inputs(batch)
        length = tokens.lengths[tokens.real & (tokens.position == 0)]
        record = tokens.document[:, 1:][batch["labels"][:, 1:] != IGNORED]
        graded = torch.bincount(record, minlength=len(length))
        total = torch.zeros(len(length), dtype=torch.float64, device=graded.device)
        with torch.no_grad(), trainer.accelerator.autocast():
            hidden = last_hidden(trainer.model, batch)
            for logits, targets in graded_logits(trainer.model, hidden, batch["labels"]):
                # In float32 the sum would depend on the order and the batches.
                per_token = functional.cross_entropy(logits, targets, reduction="none").double()
                total.index_add_(0, record[: len(targets)], per_token)
                record = record[len(targets) :]
        sums.append(total)
        counts.append(graded)
        lengths.append(length)
        is_packed |= len(length) > len(batch["labels"])
    # A row of several records has them in the packer's order.
    order = torch.cat(lengths).argsort(stable=True) if is_packed else slice(None)
    return RecordLosses(torch.cat(sums)[order], torch.cat(counts)[order])


# To add a metric, add a function from a trainer to named numbers here, and a row in `metrics.ROWS`.
MEASURES: tuple[Measure, ...] = (losses,)


def measure(trainer: Any) -> dict[str, float]:
    """Return all metrics, in evaluation mode."""
    training = trainer.model.training
    trainer.model.eval()
    try:
        return {name: value for function in MEASURES for name, value in function(trainer).items()}
    finally:
        trainer.model.train(training)


def final(
    trainer: Any, given: Mapping[str, Any], options: Mapping[str, object], graded: bool | None
) -> dict[str, float | None]:
    """Return the numbers of `neft-zoo evaluate` for a trained model; None for those that could not be measured.

    Args:
        trainer: after training.
        given: the trainer's arguments, with the records of both splits before tokenization.
        options: of the evaluation.
        graded: `completion_only_loss` of the recipe.
    """
    args = copy.copy(trainer.args)
    args.completion_only_loss = graded
    report = evaluate(
        trainer.model,
        args,
        tokenizer=trainer.processing_class,
        train=given["train_dataset"].to_list(),
        test=given["eval_dataset"][f"{MEASURED_ON}test"].to_list(),
        options=read_options(options),
    )
    return dict(_numbers(report.to_dict())) | dict(effect_numbers(report))


# Counts and constants of a report, and numbers that the history already has.
NOT_METRICS = frozenset("options bins records answers skipped at_words used too_short clip".split())


def _numbers(report: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    """Yield the numbers of a report under their names in a comparison."""
    ends = (report["losses"] or {}).get("end") or {}
    for split, numbers in ends.items():
        yield from ((f"{split}_{name}", numbers[name]) for name in ("accuracy", "calibration_error"))
    for part in ("memorization", "text"):
        for split, numbers in (report[part] or {}).items():
            yield from _flat(split, numbers)
    robust = report["robustness"] or {}
    for name, points in (robust.get("curves") or {}).items():
        for point in points:
            size, *numbers = point.items()
            yield from ((f"{name}_{size[1]:g}_{key}", value) for key, value in numbers)
    yield from ((f"template_{name}_loss", loss) for name, loss in (robust.get("templates") or {}).items())
    for name, numbers in (robust.get("lengths") or {}).items():
        if name != "plain":
            yield from _flat(name, numbers)


def _flat(prefix: str, numbers: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    for name, value in numbers.items():
        if name in NOT_METRICS or isinstance(value, list):
            continue
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}_repetition" if name == "repetition" else prefix, value)
        else:
            yield f"{prefix}_{name}", value
