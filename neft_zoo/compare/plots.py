"""Figures of comparisons as inline SVG in the colours of the surrounding page."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from statistics import fmean

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from neft_zoo.compare.experiment import CHOSEN_BY, COMPUTE, POINTS, Column, Experiment
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.records import RunRecord
from neft_zoo.compare.statistics import Difference
from neft_zoo.console import printable

# Placeholder colours, replaced afterwards by the page's CSS variables.
INK, FAINT, FIRST, SECOND, THIRD = "#010203", "#010204", "#010205", "#010206", "#010207"
VARIABLES = {
    INK: "var(--neft-ink)",
    FAINT: "var(--neft-faint)",
    FIRST: "var(--neft-first)",
    SECOND: "var(--neft-second)",
    THIRD: "var(--neft-third)",
}
LARGEST = 100  # pixels per inch, so that text in a figure is never larger than the text around it
ACROSS = 4  # panels per line
LONGEST = 60  # characters of a label; longer ones would leave no room for the data
STYLE = {
    "svg.fonttype": "none",  # keeps text searchable
    "svg.hashsalt": "neft-zoo",  # makes the file reproducible
    "text.parse_math": False,  # a dollar sign in a name is not math
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "patch.linewidth": 0,
}
Curve = list[tuple[float, float]]


def style() -> AbstractContextManager[None]:
    """Return the context in which figures are drawn."""
    return matplotlib.rc_context(STYLE)  # pyright: ignore[reportArgumentType] - its keys are a long Literal


def new(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure, in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def svg(figure: Figure, description: str, caption: str = "") -> Markup:
    """Return a figure as one line of HTML.

    Args:
        figure: drawn inside `style()`.
        description: text for screen readers.
        caption: text below the figure.
    """
    file = io.StringIO()
    with style():  # `savefig` would draw everything twice, to determine the renderer
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Ids of groups are numbered from 1 in every figure, and a page has several; ids that are referred to are hashes.
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    text = " ".join(text.split()).replace("font: 10px 'sans-serif'", "font: 10px sans-serif")
    text = text.replace("<svg", f'<svg role="img" aria-label="{html.escape(printable(description))}"', 1)
    below = Markup("<figcaption>{}</figcaption>").format(printable(caption)) if caption else ""
    width = figure.get_figwidth()
    figure_tag = Markup('<figure class="plot{}" style="max-width: {:.0f}px">{}{}</figure>')
    return figure_tag.format(" wide" if width > 8 else "", width * LARGEST, Markup(text), below)


def forest(experiment: Experiment, column: Column, rows: Sequence[str] | None = None) -> Markup:
    """Draw paired differences from the baselines with their intervals, and a dot per seed behind them.

    Args:
        experiment: the comparison.
        column: the metric and the point.
        rows: labels of the rows to draw; None for all.

    Returns:
        The figure, or "" if no row has a difference.
    """
    matched = [row for row in experiment.rows if row.is_matched and column in row.cells]
    paired = [(row.label, row.cells[column].difference) for row in matched if rows is None or row.label in rows]
    drawn = [(label, each) for label, each in paired if each is not None and each.mean is not None]
    if not drawn:
        return Markup("")
    kind = metric(column[0])
    baseline = "none of equal compute" if experiment.budget == COMPUTE else "none"
    with style():
        figure, axes = new(5.2, 0.7 + 0.22 * (len(drawn) + 1))
        axes.axvline(0, color=INK, linewidth=1)
        for place, (_, each) in enumerate(drawn, start=1):
            _interval(axes, place, each)
        axes.set_yticks(range(len(drawn) + 1), [baseline, *(label[:LONGEST] for label, _ in drawn)])
        axes.set_ylim(len(drawn) + 0.6, -0.6)
        low, high = axes.get_xlim()
        room = (10.0 ** (1 - kind.digits) - (high - low)) / 2  # differences below shown digits look like 0
        if room > 0:
            axes.set_xlim(low - room, high + room)
        axes.locator_params(axis="x", nbins=5)
        unit = f", {kind.unit}" if kind.unit else ""
        axes.set_xlabel(f"{kind.label[:LONGEST]} {POINTS[column[1]]}, minus {baseline}{unit}", fontsize=9)
    place = POINTS[column[1]]
    title = f"{experiment.title}: paired differences to {baseline} in {kind.label}, {place}, with 95 % intervals"
    return svg(figure, title)


def _interval(axes: Axes, place: int, each: Difference) -> None:
    axes.plot(each.values, [place] * len(each.values), ".", color=FAINT, markersize=3)
    if each.low is not None and each.high is not None:
        axes.plot([each.low, each.high], [place, place], color=FIRST, linewidth=2)
    if each.mean is not None:
        axes.plot([each.mean], [place], "o", color=FIRST, markersize=4)


def curves(experiment: Experiment, name: str = CHOSEN_BY) -> Markup:
    """Draw a metric over epochs in one panel per row: thin lines for seeds, a thick one for their mean, and `none`."""
    figure = draw_curves({row.label: by_seed(row.records, name) for row in experiment.rows}, metric(name).label)
    return svg(figure, f"{experiment.title}: {metric(name).label} over epochs")


def draw_curves(rows: Mapping[str, Mapping[int, Curve]], label: str) -> Figure:
    """Draw curves by row and seed; the first row is the baseline in all panels, at the seeds of each panel."""
    (first, baseline), *others = rows.items()
    panels = {row: seeds for row, seeds in others if seeds} or {first: baseline}
    lines = math.ceil(len(panels) / ACROSS)
    with style():
        figure = Figure(figsize=(8 if len(panels) < ACROSS else 11, 0.6 + 2.4 * lines), layout="constrained")
        grid = figure.subplots(lines, min(ACROSS, len(panels)), sharex=True, sharey=True, squeeze=False)
        for axes, (row, seeds) in zip(grid.flat, panels.items(), strict=False):
            paired = [curve for seed, curve in baseline.items() if seed in seeds]
            axes.plot(*_coordinates(mean_curve(paired)), color=FAINT, linewidth=2, marker=".")
            for curve in seeds.values():
                axes.plot(*_coordinates(curve), color=FIRST, linewidth=0.6, alpha=0.4)
            axes.plot(*_coordinates(mean_curve([*seeds.values()])), color=FIRST, linewidth=2, marker=".")
            axes.set_title(f"{row[:LONGEST]} ({len(seeds)} seed{'s' * (len(seeds) > 1)})", fontsize=8)
        for axes in grid.flat[len(panels) :]:
            axes.axis("off")
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel(f"{label} (gray: none at the same seeds)", fontsize=9)
    return figure


def _coordinates(curve: Curve) -> tuple[list[float], list[float]]:
    return [epoch for epoch, _ in curve], [value for _, value in curve]


def by_seed(records: Sequence[RunRecord], name: str) -> dict[int, Curve]:
    """Return epochs and values of a metric, by seed."""
    curves = {
        record.seed: [
            (point.epoch, value) for point in record.history if (value := point.metrics.get(name)) is not None
        ]
        for record in records
    }
    return {seed: curve for seed, curve in curves.items() if curve}


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean over seeds, at the epochs that all of them measured."""
    epochs = [{epoch for epoch, _ in curve} for curve in curves]
    shared = sorted(set.intersection(*epochs)) if epochs else []
    return [(epoch, fmean(dict(curve)[epoch] for curve in curves)) for epoch in shared]
