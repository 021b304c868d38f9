"""One run of a comparison, in its own process."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import tempfile
import threading
import time
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any

import torch
import transformers

from neft_zoo.compare import kept_models, results
from neft_zoo.compare.measured_trainer import MeasuredTrainer, drawn, measured_sets, steps_of
from neft_zoo.compare.measurement import Warned
from neft_zoo.compare.measures import final
from neft_zoo.compare.records import RunRecord
from neft_zoo.config.options import read_options
from neft_zoo.config.trainer_arguments import trainer_arguments
from neft_zoo.errors import DataWarning, NoiseError, NoiseWarning, one_line
from neft_zoo.redaction import redacting_streams

RESOURCE = importlib.util.find_spec("resource") is not None


@dataclass(frozen=True)
class Task:
    """A run to do.

    Attributes:
        record: what is known before the run; the rest is filled in during it.
        config: every option of the run.
        path: file for the record.
        share: multiple of the recipe's steps to train, above 0.
        graded: `completion_only_loss` of the recipe, by which every row is measured.
        threads: number of CPU threads; 0 for torch's default.
        train_records: number of training records to draw by the seed; None for all.
        evaluation: options of the evaluation at the end; None for no evaluation.
        model: folder for the trained model, new or kept; None keeps none.
    """

    record: RunRecord
    config: dict[str, object]
    path: Path
    share: float = 1.0
    graded: bool | None = None
    threads: int = 0
    train_records: int | None = None
    evaluation: dict[str, object] | None = None
    model: Path | None = None


def work(task: Task, pipe: connection.Connection | None = None) -> None:
    """Execute a run and write its record even after an error; steps and evaluations are sent through the pipe."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # accelerate collects garbage after a run. With the objects of all imports, this takes longer than a short run.
    # https://github.com/huggingface/accelerate/blob/v1.15.0/src/accelerate/utils/memory.py
    gc.freeze()
    log = task.path.with_suffix(".log")
    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    record = task.record
    with redacting_streams(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*; not used: ", DataWarning)  # shown when the comparison read the data
        _send_warnings(pipe)
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


def _send_warnings(pipe: connection.Connection | None) -> None:
    """Also send our warnings through the pipe, since the log of a successful run is not kept."""
    show = warnings.showwarning

    def send(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        show(message, category, *where, **more)
        if pipe is not None and issubclass(category, NoiseWarning):
            pipe.send(Warned(str(message), issubclass(category, DataWarning)))

    warnings.showwarning = send


def _train(task: Task, pipe: connection.Connection | None) -> None:
    record = task.record
    if task.threads:
        torch.set_num_threads(task.threads)
    with tempfile.TemporaryDirectory(prefix="neft-zoo-") as scratch:
        given = trainer_arguments(read_options({**task.config, "output_dir": f"{scratch}/out"}))
        given["train_dataset"] = drawn(given["train_dataset"], task.train_records, record.seed)
        given["eval_dataset"] = measured_sets(given)
        MeasuredTrainer.graded, MeasuredTrainer.pipe = task.graded, pipe
        trainer = MeasuredTrainer(**given, record=record)
        if task.model is None or not kept_models.restore(trainer, record, task.model):
            _measured_training(trainer, record, task.share)
            if task.model is not None:
                kept_models.keep(trainer, record, task.model)
        if task.evaluation is not None:
            record.evaluation = final(trainer, given, task.evaluation, task.graded)


def _measured_training(trainer: MeasuredTrainer, record: RunRecord, share: float) -> None:
    """Train, and record costs and measurements."""
    record.steps = trainer.args.max_steps = steps_of(trainer, share)
    warmup = trainer.args.warmup_steps  # below 1, a fraction of the steps
    if warmup >= record.steps:
        message = f"training ends at step {record.steps} and warmup_steps at {warmup:g}: the learning rate only rises."
        warnings.warn(message, NoiseWarning, stacklevel=2)
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


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _peak_memory() -> float | None:
    """Return the highest memory use so far in MiB, of the GPU if there is one, else of the process."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    if not RESOURCE:
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def _end_with_parent() -> None:
    """End this process when its parent process has ended for any reason."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
