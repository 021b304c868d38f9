"""Plots of a report; matplotlib is loaded when they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neft_zoo.errors import NoiseError
from neft_zoo.evaluation.report import whole

COLOURS = {"train": "#c2410c", "test": "#777777"}


def draw(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what the report holds and return the files: losses, ROUGE-L and curves of robustness.

    Raises:
        NoiseError: if matplotlib is missing.
    """
    paths = []
    for point, name in (("end", "losses.png"), ("best", "losses_best.png")):
        losses = (report["losses"] or {}).get(point)
        if losses:
            values = {split: losses[split]["record_losses"] for split in COLOURS}
            paths.append(histogram(values, "loss of a record (nats per graded token)", folder / name))
    found = {split: ((report["memorization"] or {}).get(split) or {}).get("rouge_l_values") for split in COLOURS}
    present = {split: values for split, values in found.items() if values}
    if present:
        paths.append(histogram(present, "ROUGE-L of the greedy answer", folder / "rouge_l.png", (0, 1)))
    for name, points in ((report["robustness"] or {}).get("curves") or {}).items():
        paths.append(curve(points, folder / f"{name}.png"))
    return paths


def histogram(
    values: Mapping[str, Sequence[float]], label: str, path: Path, limits: tuple[float, float] | None = None
) -> Path:
    """Draw the shares of records over 30 bins that all splits have in common."""
    figure, axes = _axes()
    everything = [value for each in values.values() for value in each]
    low, high = limits or (min(everything), max(everything))
    high = high if high > low else low + 1
    edges = [low + (high - low) * i / 30 for i in range(31)]
    for split, each in values.items():
        share = [1 / len(each)] * len(each)
        axes.hist(
            each, bins=edges, weights=share, alpha=0.55, color=COLOURS.get(split), label=f"{split} ({len(each)})"
        )
    axes.set(xlabel=label, ylabel="share of records")
    axes.legend(frameon=False)
    return whole(path, lambda partial: figure.savefig(partial, dpi=150))


def curve(points: Sequence[Mapping[str, float]], path: Path) -> Path:
    """Draw the loss over the first key of the points, and the share of flips where they have it."""
    figure, axes = _axes()
    key = next(iter(points[0]))
    x = [point[key] for point in points]
    axes.plot(x, [point["loss"] for point in points], marker="o", color=COLOURS["train"], label="loss")
    axes.set(xlabel=key, ylabel="test loss (nats per graded token)")
    if "flipped" in points[0]:
        right = axes.twinx()
        right.plot(x, [point["flipped"] for point in points], marker="s", linestyle="--", color=COLOURS["test"])
        right.set(ylabel="share of positions that flip (dashed)", ylim=(0, None))
    return whole(path, lambda partial: figure.savefig(partial, dpi=150))


def _axes() -> tuple[Any, Any]:
    figure: Any = require()(figsize=(6.4, 4), layout="constrained")  # no pyplot: nothing global, no display
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def require() -> Any:
    """Return matplotlib's figure class.

    Raises:
        NoiseError: if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NoiseError("plots need matplotlib: pip install 'neft-zoo[plot]', or pass --no_plots.") from None
    return Figure
