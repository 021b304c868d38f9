"""The report as one HTML file: tables and plots, nothing from elsewhere."""

from __future__ import annotations

import html as escaping
import io
from statistics import fmean
from typing import Any

from neft_zoo.compare.report import COLUMNS, EXPLAINED, cells, heading
from neft_zoo.compare.results import Record
from neft_zoo.compare.summary import Summary
from neft_zoo.errors import NoiseError

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-size: 13px; } td, th { padding: .25rem .6rem; text-align: right; }
tr { border-bottom: 1px solid #ddd; }
td:first-child, th:first-child, td:nth-child(7), th:nth-child(7) { text-align: left; }
svg { max-width: 100%; height: auto; } .table { overflow-x: auto; }
"""
SHOWN = "test_loss"


def html(summary: Summary) -> str:
    """Return the report as a page."""
    title = f"{escaping.escape(summary.recipe)}: strategies against none"
    parts = [f"<h1>{title}</h1>", _svg(_curves(summary), "test loss over epochs")]
    for metric in summary.metrics:
        parts += [f"<h2>{escaping.escape(heading(metric))}</h2>", _table(summary, metric)]
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
    """Draw the test loss over epochs: a thin line per seed, a thick one for their mean."""
    figure = _figure(8, 4.5)
    axes = figure.add_subplot()
    for index, (row, runs) in enumerate(summary.runs.items()):
        curves = [curve(record) for record in runs if record["status"] == "ok"]
        curves = [points for points in curves if points]
        for points in curves:
            axes.plot(*zip(*points, strict=True), color=f"C{index}", linewidth=0.6, alpha=0.4)
        if curves:
            points = mean_curve(curves)
            style: Any = {"color": f"C{index}", "linewidth": 2, "marker": ".", "label": f"{row} ({len(curves)} seeds)"}
            axes.plot(*zip(*points, strict=True), **style)
    axes.set_xlabel("epoch")
    axes.set_ylabel("test loss in nats per token")
    axes.legend(fontsize=8)
    return figure


def curve(record: Record) -> list[tuple[float, float]]:
    """Return epoch and test loss of a run's evaluations."""
    return [(point["epoch"], point[SHOWN]) for point in record["history"] if point.get(SHOWN) is not None]


def mean_curve(curves: list[list[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Return the mean over seeds at the epochs that all of them measured."""
    shared = sorted(set.intersection(*({epoch for epoch, _ in points} for points in curves)))
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
    axes.invert_yaxis()
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
