"""The report of a sweep of noise strength: numbers, recommendation and plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neft_zoo.console import plain_table
from neft_zoo.evaluation.plots import COLOURS, new_figure, save_figure
from neft_zoo.evaluation.serialization import Serializable


@dataclass(frozen=True)
class SweepPoint(Serializable):
    """Loss under noise of one strength.

    Attributes:
        strength: value of the swept argument.
        snr_db: signal-to-noise ratio in decibels.
        loss: nats per graded token.
        excess: loss over the clean loss, in nats.
    """

    strength: float
    snr_db: float
    loss: float
    excess: float


@dataclass(frozen=True)
class SweepReport(Serializable):
    """A sweep of noise strength; `alpha.json` has its fields as keys.

    Attributes:
        recipe: name or file.
        noise: the swept strategy and its arguments.
        argument: the argument that its noise is proportional to.
        steps: optimizer steps before the sweep.
        records: measured records.
        tokens: their graded tokens.
        clean_loss: loss without noise, in nats per graded token.
        low: strength at which the loss rises by the first share of the clean loss; None if no strength reaches it.
        pick: strength at which it rises by the second share.
        high: strength at which it rises by the third share.
        shares: the three shares.
        points: losses by strength, in increasing order.
        seconds: wall-clock time.
        cpu_s: CPU time.
        neft_zoo: version of this package.
        advice: the recommendation in words.
    """

    recipe: str
    noise: Mapping[str, object]
    argument: str
    steps: int
    records: int
    tokens: int
    clean_loss: float
    low: float | None
    pick: float | None
    high: float | None
    shares: Mapping[str, float]
    points: Sequence[SweepPoint]
    seconds: float
    cpu_s: float
    neft_zoo: str
    advice: str = ""


def at_excess(points: Sequence[SweepPoint], excess: float) -> float | None:
    """Return the strength at which the loss rises by `excess` nats, or None if no point reaches it.

    Between two points, the square of the strength is interpolated, since small noise costs loss in proportion to its
    energy.
    """
    previous_strength = previous_excess = 0.0
    for point in points:
        if point.excess >= excess:
            share = (excess - previous_excess) / (point.excess - previous_excess)
            return math.sqrt((1 - share) * previous_strength**2 + share * point.strength**2)
        previous_strength, previous_excess = point.strength, point.excess
    return None


def advice(report: SweepReport) -> str:
    """Return the recommendation with its reason."""
    name, shares = report.argument, report.shares
    low, pick, high = (None if value is None else f"{value:.2g}" for value in (report.low, report.pick, report.high))
    if low is None or pick is None:
        return f"No {name} up to {report.points[-1].strength:.3g} costs the model {shares['pick']:.0%} of its loss."
    upper = f"up to {high}" if high else "upward"
    return (
        f"Start with {name} {pick}; search from {low} {upper}, the upper half if many epochs overfit. Below {low} "
        f"noise costs under {shares['low']:.0%} of the clean loss and changes little; at {pick} it costs "
        f"{shares['pick']:.0%}" + (f", beyond {high} over {shares['high']:.0%}." if high else ".")
    )


def table(report: SweepReport) -> str:
    """Return the points as an aligned text table, below a line that describes the sweep."""
    rows = [(report.argument, "SNR, dB", "noisy loss", "over clean")]
    for point in report.points:
        share = point.excess / report.clean_loss
        rows.append((f"{point.strength:.3g}", f"{point.snr_db:.1f}", f"{point.loss:.4f}", f"{share:.1%}"))
    about = f"clean loss {report.clean_loss:.4f} after {report.steps} steps, {report.records} records"
    heading = f"{report.noise['name']}: {about}, {report.seconds:.0f} s"
    return "\n".join([heading, "", plain_table(rows, numbers=(0, 1, 2, 3)), ""])


def draw(report: SweepReport, path: Path) -> Path:
    """Plot clean loss, noisy loss and signal-to-noise ratio over the strength, and return the path."""
    figure, axes = new_figure()
    strengths = [point.strength for point in report.points]
    axes.axhline(report.clean_loss, color="black", linewidth=1, label="clean loss")
    axes.plot(strengths, [p.loss for p in report.points], marker="o", color=COLOURS["train"], label="noisy loss")
    if report.low is not None:
        axes.axvspan(report.low, report.high or strengths[-1], color=COLOURS["train"], alpha=0.12)
    if report.pick is not None:
        axes.axvline(report.pick, color=COLOURS["train"], linestyle=":", label=f"pick, {report.pick:.2g}")
    axes.set(xscale="log", xlabel=report.argument, ylabel="loss (nats per graded token)")
    right = axes.twinx()
    right.plot(strengths, [point.snr_db for point in report.points], linestyle="--", color=COLOURS["test"])
    right.set(ylabel="signal-to-noise ratio (dB, dashed)")
    axes.legend(frameon=False, loc="upper left")
    return save_figure(figure, path)
