"""Fine-tune the shipped model on the shipped instructions twice, without noise and with NEFTune, and compare.

python recipes/quickstart/demo.py                # in a checkout, or: make demo
python -m neft_zoo.recipes.quickstart.demo       # where neft-zoo[plot] is installed
"""

import argparse
import time
import warnings
from pathlib import Path

import datasets
import matplotlib
import torch
import transformers
from rich.console import Console
from rich.table import Table

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from neft_zoo import NoiseSFTConfig, SFTTrainer

HERE = Path(__file__).parent
ROWS = ("none", "neft_uniform")


def train(noise: str, data: datasets.DatasetDict, output: Path, epochs: int) -> dict:
    """Train once and return the clean losses on the way, the noise's size and the time taken."""
    args = NoiseSFTConfig(
        output_dir=str(output / noise),
        num_train_epochs=epochs,
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
        seed=0,
    )
    started = time.time()
    trainer = SFTTrainer(
        str(HERE / "model"),
        args=args,
        train_dataset=data["train"],
        eval_dataset={"train": data["train"].select(range(min(256, len(data["train"])))), "test": data["test"]},
        noise=noise,
    )
    trainer.train()
    log = trainer.state.log_history
    return {
        "seconds": time.time() - started,
        "train": [(line["epoch"], line["eval_train_loss"]) for line in log if "eval_train_loss" in line],
        "test": [(line["epoch"], line["eval_test_loss"]) for line in log if "eval_test_loss" in line],
        "rms": mean([line["noise/rms"] for line in log if "noise/rms" in line]),
        "snr_db": mean([line["noise/snr_db"] for line in log if "noise/snr_db" in line]),
    }


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


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
    for colour, (name, run) in zip(("#777777", "#c2410c"), runs.items(), strict=True):
        axes.plot(*zip(*run["test"], strict=True), color=colour, marker="o", label=f"{name}, test")
        axes.plot(*zip(*run["train"], strict=True), color=colour, marker="o", linestyle="--", label=f"{name}, train")
    axes.set(
        xlabel="epoch", ylabel="loss (nats per completion token)", title="Noise off: loss with and without NEFTune"
    )
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder for the plot")
    parser.add_argument("--records", type=int, default=640, help="training records")
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    args.output.mkdir(parents=True, exist_ok=True)
    data = datasets.load_dataset(str(HERE / "data"))
    data["train"] = data["train"].select(range(args.records))
    data["test"] = data["test"].select(range(256))
    runs = {noise: train(noise, data, args.output, args.epochs) for noise in ROWS}
    show(runs)
    path = args.output / "loss.png"
    plot(runs, path)
    print(f"Plot: {path.resolve()}")


if __name__ == "__main__":
    main()
