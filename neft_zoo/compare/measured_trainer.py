"""The trainer of a comparison: it computes our measures instead of TRL's evaluation, and records them."""

from __future__ import annotations

import math
import time
from collections.abc import Sized
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from neft_zoo.compare.measurement import Measurement, Steps
from neft_zoo.compare.measures import MEASURED_ON, RecordLosses, measure
from neft_zoo.compare.records import RunRecord
from neft_zoo.errors import NoiseError
from neft_zoo.training.hf_internals import name_of_dataset
from neft_zoo.training.trainers import SFTTrainer

if TYPE_CHECKING:
    from datasets import Dataset

TRAIN_SUBSET = 96  # number of training records to measure the clean loss on, the same ones in every run


class MeasuredTrainer(SFTTrainer):
    """Our `SFTTrainer` with evaluation replaced by our measures, and with counted steps."""

    graded: ClassVar[bool | None] = None
    pipe: ClassVar[connection.Connection | None] = None

    def __init__(self, *args: Any, record: RunRecord, **kwargs: Any) -> None:
        self.record, self.tokens, self.measuring, self.measuring_cpu = record, 0, 0.0, 0.0
        self.record_losses: dict[str, RecordLosses] = {}
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Grade evaluation sets as the recipe does, even if a control grades differently, and sort them by length."""
        if not name_of_dataset(self, (dataset, *args), kwargs).startswith(MEASURED_ON):
            return super()._prepare_dataset(dataset, *args, **kwargs)
        own, columns = self.completion_only_loss, set(dataset.column_names or ())
        self.completion_only_loss = {"prompt", "completion"} <= columns if self.graded is None else self.graded
        try:
            prepared: Any = super()._prepare_dataset(dataset, *args, **kwargs)
        finally:
            self.completion_only_loss = own
        lengths = [len(ids) for ids in prepared["input_ids"]]
        return prepared.select(sorted(range(len(lengths)), key=lengths.__getitem__))

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        mask = inputs.get("attention_mask")
        self.tokens += inputs["input_ids"].numel() if mask is None else int(mask.sum())
        if self.pipe is not None:
            self.pipe.send(Steps(self.state.global_step, self.state.max_steps))
        return super().training_step(model, inputs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Compute and record the measures; a loss that is not finite ends the run.

        Raises:
            NoiseError: if a loss is not finite.
        """
        started, worked, step = time.perf_counter(), time.process_time(), self.state.global_step
        last = self.record.history[-1:]
        if last and last[0].step == step:
            return {}  # the last step may be evaluated twice: as a step, and as the end of training
        metrics = measure(self)
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        point = Measurement(step, round(self.state.epoch or 0.0, 4), finite)
        self.record.history.append(point)
        self._keep_record_losses(point)
        for name, value in metrics.items():
            if name.endswith("_loss") and not math.isfinite(value):
                raise NoiseError(f"{name} must be finite, got {value} at step {step}.")
        if self.pipe is not None:
            self.pipe.send(point)
        self.measuring += time.perf_counter() - started
        self.measuring_cpu += time.process_time() - worked
        return {f"eval_{name}": value for name, value in metrics.items()}

    def _keep_record_losses(self, point: Measurement) -> None:
        """Keep the losses of test records, at the last and the best evaluation, for intervals over records."""
        test, loss = self.record_losses["test"], point.metrics["test_loss"]
        earlier = [known.metrics["test_loss"] for known in self.record.history[:-1]]
        kept = self.record.record_losses or {}
        kept |= {"tokens": test.counts.tolist(), "end": [round(mean, 6) for mean in test.means.tolist()]}
        if loss is not None and all(other is None or loss < other for other in earlier):
            kept["best"] = kept["end"]
        self.record.record_losses = kept


def drawn(records: Dataset, count: int | None, seed: int) -> Dataset:
    """Return the records drawn by the seed, the same ones for every row."""
    check_count_of_records(records, count)
    return records if count is None else records.shuffle(seed=seed).select(range(count))


def check_count_of_records(records: Sized, count: int | None) -> None:
    """Raise if there are fewer records than should be drawn.

    Raises:
        NoiseError: if there are fewer.
    """
    if count is not None and count > len(records):
        raise NoiseError(f"train_records must be at most the {len(records)} that there are, got {count}.")


def measured_sets(given: dict[str, Any]) -> dict[str, Dataset]:
    """Return the sets to measure on: the test split, and training records evenly spread over the data."""
    train = given["train_dataset"]
    count = min(TRAIN_SUBSET, len(train))
    chosen = train.select([index * len(train) // count for index in range(count)])
    return {f"{MEASURED_ON}train": chosen, f"{MEASURED_ON}test": given["eval_dataset"]}


def steps_of(trainer: MeasuredTrainer, share: float) -> int:
    """Return the number of optimizer steps to train: the recipe's times `share`.

    Raises:
        NoiseError: if that is no step at all.
    """
    args = trainer.args
    steps = args.max_steps
    if steps <= 0:
        batches = len(trainer.get_train_dataloader())
        per_epoch = max(1, math.ceil(batches / args.gradient_accumulation_steps))
        steps = math.ceil(per_epoch * args.num_train_epochs)
    if round(steps * share) < 1:
        raise NoiseError(f"the share of the recipe's {steps} steps must leave one at least, got {share:g}.")
    return round(steps * share)
