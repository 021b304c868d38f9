"""The recommendation of `neft-zoo alpha` compared with the best of a grid of strengths, and the cost of each."""

from __future__ import annotations

import json
import math
from pathlib import Path

from neft_zoo import registry
from neft_zoo.compare.experiment import POINTS, STEPS, Experiment, Row
from neft_zoo.compare.formats import interval_text
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.records import When
from neft_zoo.compare.statistics import Difference, paired
from neft_zoo.compare.verdicts import judge, one_test

from .tables import table, typeset
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
    gaps = {a: one_test(*(_gap(experiment, row, point, seeds) for point in POINTS)) for a, row in grid.items()}
    ends, bests = ({alpha: each[turn] for alpha, each in gaps.items()} for turn in range(len(POINTS)))
    verdicts = judge([*ends.values(), *bests.values()], experiment.margin("test_loss"), metric("test_loss").better)
    better = {alpha for alpha, verdict in zip(ends, verdicts, strict=False) if verdict.word == "better"}
    best = min(grid, key=lambda alpha: ends[alpha].mean or 0.0)
    digits = metric("test_loss").digits
    lines = [
        (
            f"**{alpha:g}**" if alpha == best else f"{alpha:g}",
            *(
                f"{interval_text(each[alpha], digits)}, {verdicts[place + len(grid) * turn].text(digits)}"
                for turn, each in enumerate((ends, bests))
            ),
            typeset(_cpu(row, seeds), 0),
        )
        for place, (alpha, row) in enumerate(grid.items())
    ]
    heads = ("alpha", *(f"test loss minus `none`, {place}" for place in POINTS.values()), "CPU seconds of training")
    count = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
    spent = [_cpu(row, seeds) for row in grid.values()]
    cost = None if None in spent else sum(each for each in spent if each is not None)
    sentence = _sentence(ends, best, best in better, cost, sweep)
    return f"**`{name}`**, {title(experiment)}, {count}:\n\n{table(heads, lines)}\n\n{sentence}"


def alphas(experiment: Experiment, name: str) -> dict[float, Row]:
    """Return the rows of a strategy that differ only in a constant alpha, by alpha."""
    rows = [row for row in experiment.rows if row.entry == name and ("test_loss", "end") in row.cells]
    constant = {alpha: row for row in rows if isinstance(alpha := row.arguments.get("alpha"), int | float)}
    same = {a: row for a, row in constant.items() if row.arguments == registry.make(name, alpha=a).to_dict()}
    return dict(sorted(same.items()))


def shared(rows: list[Row]) -> list[int]:
    """Return the seeds that all rows have measured, so that all strengths are compared equally."""
    return sorted(set.intersection(*({*row.values("test_loss", "end")} for row in rows)))


def _gap(experiment: Experiment, row: Row, point: When, seeds: list[int]) -> Difference:
    ours, none = (each.values("test_loss", point) for each in (row, experiment.rows[0]))
    return paired([ours[seed] - none[seed] for seed in seeds])


def _cpu(row: Row, seeds: list[int]) -> float | None:
    spent = row.values("cpu_s", "end")
    return sum(spent[seed] for seed in seeds) if all(seed in spent for seed in seeds) else None


def _sentence(ends: dict[float, Difference], best: float, is_better: bool, cost: float | None, sweep: Path) -> str:
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
        share = (ends[near].mean or 0.0) / (ends[best].mean or 1.0)
        text += f": the best is {'inside' if low <= best <= (high or math.inf) else 'outside'}"
        text += f", and {near:g}, the grid's nearest to the pick, has {share:.0%} of its gain"
    return f"{text}.{spent + ', the' if spent else ' The'} sweep {typeset(strengths['cpu_s'], 0)} s."
