"""One run of a comparison, in a process of its own."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sized
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import transformers

from neft_zoo.compare import results
from neft_zoo.compare.measures import MEASURED_ON, final, measure
from neft_zoo.compare.records import Measurement, RunRecord, Steps
from neft_zoo.config.options import read_options, trainer_arguments
from neft_zoo.errors import NoiseError, one_line
from neft_zoo.redaction import redacting_streams
from neft_zoo.training.hf_internals import name_of_dataset
from neft_zoo.training.trainers import SFTTrainer

if TYPE_CHECKING:
    from datasets import Dataset

TRAIN_SUBSET = 96  # training records whose clean loss is measured; the same ones in every run
RESOURCE = importlib.util.find_spec("resource") is not None


@dataclass(frozen=True)
class Task:
    """A run to do.

    Attributes:
        record: what is known before it starts; the rest is filled in while it runs.
        config: every option of the run.
        path: where the record goes.
        share: fraction of the recipe's steps to train, in (0, 1].
        graded: completion_only_loss of the recipe, by which every row is measured.
        threads: CPU threads, 0 for torch's own choice.
        train_records: how many training records to draw, by the seed; None for all.
        evaluation: options of the evaluation at the end; None for none.
    """

    record: RunRecord
    config: dict[str, object]
    path: Path
    share: float = 1.0
    graded: bool | None = None
    threads: int = 0
    train_records: int | None = None
    evaluation: dict[str, object] | None = None


class MeasuredTrainer(SFTTrainer):
    """Our trainer, with evaluation replaced by the measures, and its steps counted."""

    graded: ClassVar[bool | None] = None
    pipe: ClassVar[connection.Connection | None] = None

    def __init__(self, *args: Any, record: RunRecord, **kwargs: Any) -> None:
        self.record, self.tokens, self.measuring, self.measuring_cpu = record, 0, 0.0, 0.0
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Grade evaluation sets as the recipe does, should a control grade otherwise, and sort them by length."""
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
        """Measure and remember; a loss that is no number ends the run.

        Raises:
            NoiseError: if it is not finite.
        """
        started, worked, step = time.perf_counter(), time.process_time(), self.state.global_step
        last = self.record.history[-1:]
        if last and last[0].step == step:
            return {}  # the last step can be due twice: as a step, and as the end
        metrics = measure(self)
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        point = Measurement(step, round(self.state.epoch or 0.0, 4), finite)
        self.record.history.append(point)
        for name, value in metrics.items():
            if name.endswith("_loss") and not math.isfinite(value):
                raise NoiseError(f"{name} must be finite, got {value} at step {step}.")
        if self.pipe is not None:
            self.pipe.send(point)
        self.measuring += time.perf_counter() - started
        self.measuring_cpu += time.process_time() - worked
        return {f"eval_{name}": value for name, value in metrics.items()}


def work(task: Task, pipe: connection.Connection | None = None) -> None:
    """Do a run and write its record, whatever happens; steps and evaluations are sent through the pipe."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = task.path.with_suffix(".log")
    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    record = task.record
    with redacting_streams():
        try:
            _train(task, pipe)
            record.status = "ok"
        except NoiseError as error:
            record.error = str(error)
        except Exception as error:
            traceback.print_exc()
            record.error, record.log = f"{type(error).__name__}: {one_line(error)}", log.name
    record.peak_memory_mb = _peak_memory()
    sys.stdout.flush()
    results.write(task.path, record)
    if record.log is None:
        log.unlink(missing_ok=True)


def _train(task: Task, pipe: connection.Connection | None) -> None:
    record = task.record
    if task.threads:
        torch.set_num_threads(task.threads)
    with tempfile.TemporaryDirectory(prefix="neft-zoo-") as scratch:
        given = trainer_arguments(read_options({**task.config, "output_dir": f"{scratch}/out"}))
        given["train_dataset"] = _drawn(given["train_dataset"], task)
        given["eval_dataset"] = measured_sets(given)
        MeasuredTrainer.graded, MeasuredTrainer.pipe = task.graded, pipe
        trainer = MeasuredTrainer(**given, record=record)
        record.steps = trainer.args.max_steps = _steps(trainer, task.share)
        record.device = _device(trainer.args.device)
        transformers.set_seed(trainer.args.seed)
        started, worked = time.perf_counter(), time.process_time()
        trainer.train()
        record.cpu_s = round(time.process_time() - worked - trainer.measuring_cpu, 3)
        record.wall_s = round(time.perf_counter() - started - trainer.measuring, 3)
        if not record.history or record.history[-1].step != trainer.state.global_step:
            trainer.evaluate()
        record.measuring_s = round(trainer.measuring, 3)
        log = trainer.state.log_history
        record.training_loss = [[line["step"], line["loss"]] for line in log if "loss" in line]
        record.tokens = trainer.tokens
        record.end = record.history[-1]
        record.best = min(record.history, key=lambda point: point["test_loss"])
        if task.evaluation is not None:
            record.evaluation = final(trainer, given, task.evaluation, task.graded)


def _drawn(records: Dataset, task: Task) -> Dataset:
    """Return the records that the seed draws, the same ones for every row."""
    check_count_of_records(records, task.train_records)
    if task.train_records is None:
        return records
    return records.shuffle(seed=task.record.seed).select(range(task.train_records))


def check_count_of_records(records: Sized, count: int | None) -> None:
    """Raise if fewer records are there than are to be drawn.

    Raises:
        NoiseError: if there are fewer.
    """
    if count is not None and count > len(records):
        raise NoiseError(f"train_records must be at most the {len(records)} that there are, got {count}.")


def measured_sets(given: dict[str, Any]) -> dict[str, Dataset]:
    """Return the sets to measure on: the test split, and training records spread evenly over the data."""
    train = given["train_dataset"]
    count = min(TRAIN_SUBSET, len(train))
    chosen = train.select([index * len(train) // count for index in range(count)])
    return {f"{MEASURED_ON}train": chosen, f"{MEASURED_ON}test": given["eval_dataset"]}


def _steps(trainer: MeasuredTrainer, share: float) -> int:
    """Return how many optimizer steps to train: the recipe's, or a fraction of them, at least one."""
    args = trainer.args
    steps = args.max_steps
    if steps <= 0:
        batches = len(trainer.get_train_dataloader())
        per_epoch = max(1, math.ceil(batches / args.gradient_accumulation_steps))
        steps = math.ceil(per_epoch * args.num_train_epochs)
    return max(1, round(steps * share))


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _peak_memory() -> float | None:
    """Return the highest memory use so far in MiB: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    if not RESOURCE:
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however that ended."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
