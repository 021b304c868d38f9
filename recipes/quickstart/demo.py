"""Fine-tune the shipped model on the shipped instructions without noise, with NEFTune, and for half as long.

python recipes/quickstart/demo.py                # in a checkout, or: make demo
python -m neft_zoo.recipes.quickstart.demo       # where neft-zoo[plot] is installed
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

matplotlib.use("Agg")
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    import datasets

HERE = Path(__file__).parent
SHORT = 160  # characters of prompt and answer, about 45 tokens: longer records only take longer
EVALUATED = 128  # records of each split whose loss is measured after every epoch
STEPS = None  # queue of (row, finished share of its steps); set in every training process


@dataclass(frozen=True)
class Row:
    """A training: its strategy, and how long it is beside the others."""

    name: str
    noise: str
    share: float
    colour: str


ROWS = (
    Row("none", "none", 1.0, "#777777"),
    Row("neft_uniform", "neft_uniform", 1.0, "#c2410c"),
    # Noise must beat shorter training with its own schedule, which also regularizes and saves compute.
    Row("none, half as long", "none", 0.5, "#1d4ed8"),
)


def prepare(steps: multiprocessing.Queue, threads: int) -> None:
    """Set up a process that trains."""
    global STEPS
    import torch

    threading.Thread(target=end_with_parent, daemon=True).start()
    STEPS = steps
    torch.set_num_threads(threads)


def end_with_parent() -> None:
    """End this process when the one that started it is gone: a killed demo must not go on training."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def train(row: Row, records: int, epochs: int, output: Path) -> dict:
    """Train once and return the clean losses on the way, the noise's size and the time taken."""
    import transformers

    from neft_zoo import NoiseSFTConfig, SFTTrainer
    from neft_zoo.console import quiet

    class Reporting(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            STEPS.put((row.name, state.global_step / state.max_steps))

    with quiet():
        args = NoiseSFTConfig(
            output_dir=str(output / row.name),
            num_train_epochs=epochs * row.share,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=32,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            warmup_steps=20,
            max_length=256,
            logging_steps=8,
            eval_strategy="epoch",
            save_strategy="no",
            gradient_checkpointing=False,
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            seed=0,
        )
        started, data = time.time(), load(records)
        trainer = SFTTrainer(
            str(HERE / "model"),
            args=args,
            train_dataset=data["train"],
            eval_dataset={"train": evaluated(data["train"]), "test": evaluated(data["test"])},
            noise=row.noise,
            callbacks=[Reporting()],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    log = trainer.state.log_history
    return {
        "seconds": time.time() - started,
        "train": [(line["epoch"], line["eval_train_loss"]) for line in log if "eval_train_loss" in line],
        "test": [(line["epoch"], line["eval_test_loss"]) for line in log if "eval_test_loss" in line],
        "rms": mean([line["noise/rms"] for line in log if "noise/rms" in line]),
        "snr_db": mean([line["noise/snr_db"] for line in log if "noise/snr_db" in line]),
    }


def load(records: int) -> datasets.DatasetDict:
    """Return the short records, and of the training split so many."""
    from datasets import load_dataset

    data = load_dataset(str(HERE / "data")).filter(lambda record: length(record) <= SHORT)
    data["train"] = data["train"].select(range(min(records, len(data["train"]))))
    data["test"] = data["test"].select(range(min(records, len(data["test"]))))
    return data


def evaluated(records: datasets.Dataset) -> datasets.Dataset:
    """Return the records that are measured, sorted by length: padding takes time and changes nothing."""
    records = records.select(range(min(EVALUATED, len(records))))
    return records.select(sorted(range(len(records)), key=lambda place: length(records[place])))


def length(record: dict) -> int:
    """Return the characters of a record."""
    return sum(len(turn["content"]) for turn in (*record["prompt"], *record["completion"]))


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def train_all(records: int, epochs: int, output: Path) -> dict[str, dict]:
    """Train all rows side by side, with as many threads each as there are cores for, and one progress display."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["neft_zoo.training.trainers"])  # once, not in every process
    steps = context.Queue()
    setup = {"initializer": prepare, "initargs": (steps, max(1, cores() // len(ROWS)))}
    with ProcessPoolExecutor(len(ROWS), context, **setup) as pool, Progress(console=Console(stderr=True)) as progress:
        bars = {row.name: progress.add_task(row.name, total=1.0) for row in ROWS}
        runs = {row.name: pool.submit(train, row, records, epochs, output) for row in ROWS}
        while not all(map(Future.done, runs.values())):
            try:
                name, share = steps.get(timeout=0.5)
                progress.update(bars[name], completed=share)
            except queue.Empty:
                pass
        return {name: run.result() for name, run in runs.items()}


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def show(runs: dict[str, dict]) -> None:
    """Print one row per run; every loss is measured with the noise off."""
    table = Table(title="Train and test loss (nats per completion token, noise off)")
    for column in ("noise", "train", "test", "best test", "noise rms", "SNR", "time"):
        table.add_column(column, justify="left" if column == "noise" else "right")
    for name, run in runs.items():
        noise = ("-", "-") if run["rms"] is None else (f"{run['rms']:.4f}", f"{run['snr_db']:.1f} dB")
        best = min(loss for _, loss in run["test"])
        losses = [f"{loss:.3f}" for loss in (run["train"][-1][1], run["test"][-1][1], best)]
        table.add_row(name, *losses, *noise, f"{run['seconds']:.0f} s")
    Console().print(table)


def plot(runs: dict[str, dict], path: Path) -> None:
    """Draw test and train loss over the epochs."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for row in ROWS:
        for split, line in (("test", "-"), ("train", "--")):
            losses = zip(*runs[row.name][split], strict=True)
            axes.plot(*losses, color=row.colour, marker="o", linestyle=line, label=f"{row.name}, {split}")
    axes.set(
        xlabel="epoch",
        ylabel="loss (nats per completion token)",
        title="Noise off: loss without NEFTune, with it, and trained shorter",
    )
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder for the plot")
    parser.add_argument("--records", type=int, default=384, help="training records")
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    started = time.time()
    runs = train_all(args.records, args.epochs, args.output)
    show(runs)
    path = args.output / "loss.png"
    plot(runs, path)
    print(f"One seed; {time.time() - started:.0f} s for all. Plot: {path.resolve()}")


if __name__ == "__main__":
    main()
