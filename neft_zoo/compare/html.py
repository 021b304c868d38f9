"""The report as one HTML file: tables and plots, nothing from elsewhere."""

from __future__ import annotations

import html as escaping
import io
import math
from statistics import fmean
from typing import Any

from neft_zoo.compare.results import Record
from neft_zoo.compare.summary import Summary
from neft_zoo.compare.tables import COLUMNS, EXPLAINED, cells, heading
from neft_zoo.errors import NoiseError

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-size: 13px; } td, th { padding: .25rem .6rem; text-align: right; }
tr { border-bottom: 1px solid #ddd; }
td:first-child, th:first-child, td:nth-child(7), th:nth-child(7) { text-align: left; }
nav { font-size: 13px; margin: 1rem 0; } a { color: inherit; }
svg { max-width: 100%; height: auto; } .table { overflow-x: auto; }
"""
SHOWN = "test_loss"
ACROSS = 4  # panels in a line


def html(summary: Summary) -> str:
    """Return the report as a page."""
    title = f"{escaping.escape(summary.recipe)}: strategies against none"
    parts = [f"<h1>{title}</h1>", _svg(_curves(summary), "test loss over epochs")]
    names = {metric: escaping.escape(heading(metric)) for metric in summary.metrics}
    links = [f'<a href="#{metric.replace(" ", "-")}">{name}</a>' for metric, name in names.items()]
    parts.append(f"<nav>{' &middot; '.join(links)}</nav>")
    for metric, name in names.items():
        parts += [f'<h2 id="{metric.replace(" ", "-")}">{name}</h2>', _table(summary, metric)]
        parts.append(_svg(_forest(summary, metric), f"paired differences, {metric}"))
    explained = EXPLAINED.replace("*", "").replace("`", "")
    parts.append(f"<p>{escaping.escape(explained)}</p>")
    parts += [f"<p>{escaping.escape(note)}</p>" for note in summary.notes]
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _table(summary: Summary, metric: str) -> str:
    rows = [cells(line) for line in summary.lines if line.metric == metric]
    lines = ["<tr>" + "".join(f"<th>{name}</th>" for name in COLUMNS) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escaping.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return '<div class="table"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NoiseError("an HTML report needs matplotlib: pip install 'neft-zoo[compare]'.") from None
    return Figure(figsize=(width, height), layout="constrained")


def _curves(summary: Summary) -> Any:
    """Draw the test loss over epochs, a panel per row: thin lines of seeds, thick their mean; `none` in gray."""
    found = {row: by_seed(runs) for row, runs in summary.runs.items()}
    panels = {row: curves for row, curves in found.items() if curves and row != "none"} or {"none": found["none"]}
    lines = math.ceil(len(panels) / ACROSS)
    figure = _figure(8 if len(panels) < ACROSS else 11, 0.6 + 2.4 * lines)
    grid = figure.subplots(lines, min(ACROSS, len(panels)), sharex=True, sharey=True, squeeze=False)
    for axes, (row, curves) in zip(grid.flat, panels.items(), strict=False):
        pairs = [points for seed, points in found["none"].items() if seed in curves]
        axes.plot(*_line(mean_curve(pairs)), color="gray", linewidth=2, marker=".")
        for points in curves.values():
            axes.plot(*_line(points), color="C0", linewidth=0.6, alpha=0.4)
        axes.plot(*_line(mean_curve([*curves.values()])), color="C0", linewidth=2, marker=".")
        axes.set_title(f"{row} ({len(curves)} seed{'s' * (len(curves) > 1)})", fontsize=8)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("test loss in nats per token (gray: none at the same seeds)", fontsize=9)
    return figure


def _line(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [epoch for epoch, _ in points], [loss for _, loss in points]


def by_seed(runs: list[Record]) -> dict[int, list[tuple[float, float]]]:
    """Return epoch and test loss of the evaluations of the runs that ended well."""
    found = {
        run["seed"]: [(point["epoch"], point[SHOWN]) for point in run["history"] if point.get(SHOWN) is not None]
        for run in runs
        if run["status"] == "ok"
    }
    return {seed: points for seed, points in found.items() if points}


def mean_curve(curves: list[list[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Return the mean over seeds at the epochs that all of them measured."""
    epochs = [{epoch for epoch, _ in points} for points in curves]
    shared = sorted(set.intersection(*epochs)) if epochs else []
    return [(epoch, fmean(dict(points)[epoch] for points in curves)) for epoch in shared]


def _forest(summary: Summary, metric: str) -> Any:
    """Draw the paired differences: a dot per seed, the mean and its interval."""
    lines = [line for line in summary.lines if line.metric == metric and line.difference and line.difference.values]
    figure = _figure(8, 1.2 + 0.35 * max(1, len(lines)))
    axes = figure.add_subplot()
    axes.axvline(0, color="black", linewidth=0.8)
    for place, line in enumerate(lines):
        found = line.difference
        assert found is not None and found.mean is not None
        axes.plot(found.values, [place] * len(found.values), ".", color="gray", alpha=0.6)
        if found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [place, place], color="C0", linewidth=2)
        axes.plot([found.mean], [place], "o", color="C0")
    axes.set_yticks(range(len(lines)), [line.row for line in lines], fontsize=8)
    axes.set_ylim(max(1, len(lines)) - 0.5, -0.5)  # the first on top, none on the frame
    axes.set_xlabel(f"{metric}: difference to none, 95 % interval")
    return figure


def _svg(figure: Any, told: str) -> str:
    """Return a figure as an SVG element; text stays text, so that it can be searched."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "neft-zoo"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return f'<figure role="img" aria-label="{escaping.escape(told)}">{text[text.index("<svg") :]}</figure>'
