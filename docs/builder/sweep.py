"""The test loss against alpha, for uniform noise and for Gaussian noise at the same alpha and at the same energy."""

from __future__ import annotations

import math
from collections.abc import Iterator

from neft_zoo.compare.experiment import POINTS, STEPS, Cell, Experiment
from neft_zoo.compare.plots import FIRST, INK, SECOND, THIRD, new, style, svg
from neft_zoo.compare.records import When

from .words import title

LINES: tuple[tuple[str, str, dict[str, bool], str, str], ...] = (
    ("uniform", "neft_uniform", {}, FIRST, "o-"),
    ("Gaussian", "neft_gaussian", {"match_rms": False}, SECOND, "s--"),
    ("Gaussian of equal energy", "neft_gaussian", {"match_rms": True}, THIRD, "^:"),
)
FEWEST = 2  # values of alpha that make a line


def figures(experiments: list[Experiment]) -> str:
    """Return a figure per experiment with several alphas, or "" if there is none."""
    swept = [each for each in experiments if each.budget == STEPS and len(alphas(each)) >= FEWEST]
    return "\n\n".join(drawn(each) for each in swept)


def alphas(experiment: Experiment) -> list[float]:
    """Return the constant values of alpha at which uniform noise was run."""
    values = [row.arguments.get("alpha") for row in experiment.rows if row.entry == "neft_uniform"]
    return sorted({value for value in values if isinstance(value, int | float)})


def points(experiment: Experiment, entry: str, changed: dict[str, bool], point: When) -> Iterator[tuple[float, Cell]]:
    """Yield alpha and test loss of an entry."""
    for alpha in alphas(experiment):
        row = experiment.find(entry, alpha=alpha, **changed)
        cell = row.cells.get(("test_loss", point)) if row else None
        if cell and cell.difference and cell.difference.mean is not None:
            yield alpha, cell


def whiskers(cell: Cell) -> tuple[float, float, float]:
    """Return a difference and the extents of its interval; NaN for one seed."""
    each = cell.difference
    assert each is not None and each.mean is not None
    if each.low is None or each.high is None:
        return each.mean, math.nan, math.nan
    return each.mean, each.mean - each.low, each.high - each.mean


def drawn(experiment: Experiment) -> str:
    """Return the figures of an experiment: one for the end, one for the best checkpoint."""
    panels = "".join(panel(experiment, point) for point in POINTS)
    return f'<div class="plots">{panels}</div>'


def panel(experiment: Experiment, point: When) -> str:
    """Return the difference from `none` by alpha, one line per distribution."""
    place, values = POINTS[point], alphas(experiment)
    with style():
        figure, axes = new(4.6, 2.9)
        axes.axhline(0, color=INK, linewidth=1)
        for turn, (name, entry, changed, colour, kind) in enumerate(LINES, start=-1):
            if not (cells := list(points(experiment, entry, changed, point))):
                continue
            middle, below, above = zip(*(whiskers(cell) for _, cell in cells), strict=True)
            beside = [alpha * 1.03**turn for alpha, _ in cells]  # so that intervals do not hide each other
            axes.errorbar(beside, middle, [below, above], fmt=kind, color=colour, label=name, markersize=4)
        axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("alpha")
        axes.set_ylabel("test loss minus none")
        figure.legend(loc="outside upper left", fontsize=8, ncols=len(LINES), columnspacing=1)
        caption = f"{title(experiment)}, test loss {place}: difference to none by alpha, with 95 % intervals"
        return svg(figure, caption, f"{caption}.")
