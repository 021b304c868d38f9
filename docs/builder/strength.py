"""The recommendation of `neft-zoo alpha` compared with the best of a grid of strengths, and the cost of each."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean

from neft_zoo import registry
from neft_zoo.compare.experiment import POINTS, STEPS, Experiment, Row

from .tables import judged_text, table, typeset
from .words import title

SWEEPS = Path(__file__).parents[1] / "strength"  # output of neft-zoo alpha, one file per strategy
FEWEST = 3  # strengths that make a grid


def compared(experiments: list[Experiment], names: list[str], sweeps: Path = SWEEPS) -> str:
    """Return a table and a sentence for each strategy and experiment with a grid of alphas; "" without one."""
    plain = [each for each in experiments if each.budget == STEPS]
    parts = [_compared(each, name, sweeps / f"{name}.json") for name in names for each in plain]
    return "\n\n".join(filter(None, parts))


def _compared(experiment: Experiment, name: str, sweep: Path) -> str | None:
    grid = alphas(experiment, name)
    seeds = shared([experiment.rows[0], *grid.values()])
    if len(grid) < FEWEST or not seeds:
        return None
    ends = {alpha: _mean_gap(experiment, row, seeds) for alpha, row in grid.items()}
    best = min(grid, key=lambda alpha: ends[alpha])
    judged = grid[best].cells["test_loss", "end"].verdict
    is_better = judged is not None and judged.word == "better"
    lines = [
        (
            f"**{alpha:g}**" if alpha == best else f"{alpha:g}",
            *(judged_text(row.cells.get(("test_loss", point))) for point in POINTS),
            str(row.cells["test_loss", "end"].pairs),
            typeset(_cpu(row, seeds), 0),
        )
        for alpha, row in grid.items()
    ]
    heads = ("alpha", *(f"test loss minus `none`, {place}" for place in POINTS.values()), "seeds", "CPU seconds")
    count = f"{len(seeds)} common seed{'s' * (len(seeds) > 1)}"
    spent = [_cpu(row, seeds) for row in grid.values()]
    cost = None if None in spent else sum(each for each in spent if each is not None)
    sentence = _sentence(ends, best, is_better, cost, sweep)
    return f"**`{name}`**, {title(experiment)}, {count}:\n\n{table(heads, lines)}\n\n{sentence}"


def alphas(experiment: Experiment, name: str) -> dict[float, Row]:
    """Return the rows of a strategy that differ only in a constant alpha, by alpha."""
    rows = [row for row in experiment.rows if row.entry == name and ("test_loss", "end") in row.cells]
    same = {
        alpha: row
        for row in rows
        if isinstance(alpha := row.arguments.get("alpha"), int | float)
        and row.arguments == registry.make(name, alpha=alpha).to_dict()
    }
    return dict(sorted(same.items()))


def shared(rows: list[Row]) -> list[int]:
    """Return the seeds that all rows have measured, so that all strengths are compared equally."""
    return sorted(set.intersection(*({*row.values("test_loss", "end")} for row in rows)))


def _mean_gap(experiment: Experiment, row: Row, seeds: list[int]) -> float:
    """Return the mean difference from `none` at the end of training over some seeds."""
    ours, none = (each.values("test_loss", "end") for each in (row, experiment.rows[0]))
    return fmean(ours[seed] - none[seed] for seed in seeds)


def _cpu(row: Row, seeds: list[int]) -> float | None:
    spent = row.values("cpu_s", "end")
    return sum(spent[seed] for seed in seeds) if all(seed in spent for seed in seeds) else None


def _sentence(ends: dict[float, float], best: float, is_better: bool, cost: float | None, sweep: Path) -> str:
    """Return a comparison of the sweep's pick with the best of the grid, if any is better than `none`."""
    text = f"The best of the grid at the end of training is {best:g}."
    text = text if is_better else "No alpha of the grid is shown to be better than `none`."
    spent = "" if cost is None else f" The grid took {typeset(cost, 0)} s of CPU time in training alone"
    if not sweep.exists():
        return f"{text}{spent and spent + '.'} The sweep was not run here."
    strengths: dict[str, float | None] = json.loads(sweep.read_text(encoding="utf-8"))
    low, pick, high = (strengths[edge] for edge in ("low", "pick", "high"))
    if pick is None or low is None:
        return f"{text} The sweep found no strength that costs enough to pick one."
    ends_at = "upward" if high is None else f"to {high:.3g}"
    text += f" The sweep picks {pick:.3g} and says to search from {low:.3g} {ends_at}"
    if is_better:
        near = min(ends, key=lambda alpha: abs(math.log(alpha / pick)) if alpha else math.inf)
        share = ends[near] / ends[best]
        text += f": the best is {'inside' if low <= best <= (high or math.inf) else 'outside'}"
        text += f", and {near:g}, the grid's nearest to the pick by ratio, has {share:.0%} of its gain"
    return f"{text}.{spent + ', the' if spent else ' The'} sweep {typeset(strengths['cpu_s'], 0)} s."
