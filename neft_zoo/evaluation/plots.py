"""Plots of a report; matplotlib is imported on first use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neft_zoo.errors import require
from neft_zoo.evaluation.results import EvaluationReport, NoisePoint, ReplacementPoint
from neft_zoo.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"train": "#c2410c", "test": "#777777"}


def draw(report: EvaluationReport, folder: Path) -> list[Path]:
    """Draw losses, ROUGE-L and robustness curves, and return the files.

    Raises:
        NoiseError: if matplotlib is missing, or a file cannot be written.
    """
    paths = []
    for losses, name in (
        (report.losses and report.losses.end, "losses.png"),
        (report.losses and report.losses.best, "losses_best.png"),
    ):
        if losses:
            record_losses = {split: getattr(losses, split).record_losses for split in COLOURS}
            paths.append(histogram(record_losses, "loss of a record (nats per graded token)", folder / name))
    rouge = {
        split: [value for value in found.rouge_l_values if value is not None]
        for split, found in (report.memorization or {}).items()
    }
    rouge = {split: rouge[split] for split in COLOURS if rouge.get(split)}
    if rouge:
        paths.append(histogram(rouge, "ROUGE-L of the greedy answer", folder / "rouge_l.png", (0, 1)))
    if report.robustness:
        curves = report.robustness.curves
        if curves.replaced_tokens:
            paths.append(replacement_curve(curves.replaced_tokens, folder / "replaced_tokens.png"))
        if curves.noise:
            paths.append(noise_curve(curves.noise, folder / "noise.png"))
    return paths


def histogram(
    values: Mapping[str, Sequence[float]], label: str, path: Path, limits: tuple[float, float] | None = None
) -> Path:
    """Draw the share of records in each of 30 bins that all splits share."""
    figure, axes = new_figure()
    everything = [value for split_values in values.values() for value in split_values]
    low, high = limits or (min(everything), max(everything))
    high = high if high > low else low + 1
    edges = [low + (high - low) * i / 30 for i in range(31)]
    for split, split_values in values.items():
        weights, name = [1 / len(split_values)] * len(split_values), f"{split} ({len(split_values)})"
        axes.hist(split_values, bins=edges, weights=weights, alpha=0.55, color=COLOURS.get(split), label=name)
    axes.set(xlabel=label, ylabel="share of records")
    axes.legend(frameon=False)
    return save_figure(figure, path)


def replacement_curve(points: Sequence[ReplacementPoint], path: Path) -> Path:
    """Plot the test loss over the share of replaced tokens."""
    figure, axes = new_figure()
    axes.plot([p.rate for p in points], [p.loss for p in points], marker="o", color=COLOURS["train"], label="loss")
    axes.set(xlabel="rate", ylabel="test loss (nats per graded token)")
    return save_figure(figure, path)


def noise_curve(points: Sequence[NoisePoint], path: Path) -> Path:
    """Plot the test loss and the share of flipped positions over alpha."""
    figure, axes = new_figure()
    alphas = [point.alpha for point in points]
    axes.plot(alphas, [point.loss for point in points], marker="o", color=COLOURS["train"], label="loss")
    axes.set(xlabel="alpha", ylabel="test loss (nats per graded token)")
    right = axes.twinx()
    right.plot(alphas, [point.flipped for point in points], marker="s", linestyle="--", color=COLOURS["test"])
    right.set(ylabel="share of positions that flip (dashed)", ylim=(0, None))
    return save_figure(figure, path)


def new_figure() -> tuple[Figure, Axes]:
    """Return a figure and its axes.

    Raises:
        NoiseError: if matplotlib is missing.
    """
    # Not pyplot, which keeps every figure in memory and selects a display backend.
    figure: Figure = require_matplotlib()(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all, and return the path.

    Raises:
        NoiseError: if it cannot be written.
    """
    with replacing(path) as partial:
        figure.savefig(partial, dpi=150, format="png")
    return path


def require_matplotlib() -> type[Figure]:
    """Return matplotlib's figure class.

    Raises:
        NoiseError: if matplotlib is missing.
    """
    return require("matplotlib.figure", "a plot (--no_plots draws none)", "plot").Figure
