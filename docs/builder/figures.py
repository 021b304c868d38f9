"""Figures as SVG elements that take the page's colours, in its light and its dark scheme."""

from __future__ import annotations

import html
import io
import re
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from .metrics import metric
from .outcomes import POINTS, Experiment

# Drawn in these and renamed afterwards: an SVG inside a page can use the page's variables.
INK, FAINT, FIRST, SECOND, THIRD = "#010203", "#010204", "#010205", "#010206", "#010207"
VARIABLES = {
    INK: "var(--neft-ink)",
    FAINT: "var(--neft-faint)",
    FIRST: "var(--neft-first)",
    SECOND: "var(--neft-second)",
    THIRD: "var(--neft-third)",
}
LARGEST = 100  # pixels per inch, so that letters of a figure never outgrow the text around it
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "neft-zoo",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "patch.linewidth": 0,
}


def style() -> Any:
    """Return a context in which figures are drawn."""
    return matplotlib.rc_context(STYLE)


def new(width: float, height: float) -> tuple[Figure, Any]:
    """Return a figure, in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def svg(figure: Figure, told: str, caption: str = "") -> str:
    """Return a figure as one line of HTML; `told` is what a screen reader says."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Groups are numbered from 1 in every figure, and a page has several; what is referred to has a hash for a name.
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    text = " ".join(text.split()).replace("font: 10px 'sans-serif'", "font: 10px sans-serif")
    name = html.escape(told, quote=True)
    text = text.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    width = figure.get_figwidth()
    wide = " wide" if width > 8 else ""
    return f'<figure class="plot{wide}" style="max-width: {width * LARGEST:.0f}px">{text}{below}</figure>'


def forest(experiment: Experiment, name: str, point: str, rows: list[str] | None = None) -> str:
    """Return paired differences to `none` with their intervals, a dot per seed behind them."""
    chosen = [row for row in experiment.rows if rows is None or row.label in rows]
    found = [(row.label, row.cells[name, point].difference) for row in chosen if (name, point) in row.cells]
    drawn = [(told, each) for told, each in found if each is not None and each.mean is not None]
    if not drawn:
        return ""
    kind = metric(name)
    with style():
        figure, axes = new(5.2, 0.7 + 0.22 * (len(drawn) + 1))
        axes.axvline(0, color=INK, linewidth=1)
        for place, (_, each) in enumerate(drawn, start=1):
            axes.plot(each.values, [place] * len(each.values), ".", color=FAINT, markersize=3)
            if each.low is not None and each.high is not None:
                axes.plot([each.low, each.high], [place, place], color=FIRST, linewidth=2)
            axes.plot([each.mean], [place], "o", color=FIRST, markersize=4)
        axes.set_yticks(range(len(drawn) + 1), ["none", *(told for told, _ in drawn)])
        axes.set_ylim(len(drawn) + 0.6, -0.6)
        low, high = axes.get_xlim()
        room = (10.0 ** (1 - kind.digits) - (high - low)) / 2  # differences below what tables show look like none
        if room > 0:
            axes.set_xlim(low - room, high + room)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(f"{kind.label} {POINTS[point]}, less none{f', {kind.unit}' if kind.unit else ''}", fontsize=9)
        told = f"{experiment.title}: paired differences to none in {kind.label}, {POINTS[point]}, with 95 % intervals"
        return svg(figure, told)
