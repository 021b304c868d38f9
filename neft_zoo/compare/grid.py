"""The grid of a comparison: recipe x rows x seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

from neft_zoo.compare.metrics import read_margins
from neft_zoo.compare.rows import (
    NOT_OURS,
    Row,
    control_rows,
    length_rows,
    read_lengths,
    read_setting,
    row_of,
    rows_of,
    select,
)
from neft_zoo.config import recipe
from neft_zoo.config.noise_flags import with_stock_noise
from neft_zoo.evaluation.options import read_options
from neft_zoo.noise.schedules import check_count


@dataclass(frozen=True)
class Grid:
    """All runs of a comparison: rows times seeds of a recipe.

    Attributes:
        recipe: name of the recipe.
        config: its options, without those that change no result.
        rows: `none` first.
        seeds: of data order, dropout and noise; rows are paired by seed.
        compute_matched: whether a strategy of k passes trains for 1/k of the steps.
        train_records: number of training records drawn per seed; None for all.
        evaluation: options of the evaluation at the end of every run; None for no evaluation.
        margins: the recipe's margins of practical equivalence, by metric; they change no result.
    """

    recipe: str
    config: dict[str, object]
    rows: list[Row]
    seeds: list[int]
    compute_matched: bool = False
    train_records: int | None = None
    evaluation: dict[str, object] | None = None
    margins: dict[str, float] = field(default_factory=dict)

    @property
    def graded(self) -> bool | None:
        """Whether the recipe grades completions only; None if the columns of the data determine it."""
        return cast("bool | None", self.config.get("completion_only_loss"))

    @property
    def settings(self) -> dict[str, object]:
        """The settings of all runs that determine their results; shipped files by their path among the recipes."""
        shipped = str(recipe.folder())
        config = {
            key: value.replace(shipped, recipe.PLACEHOLDER) if isinstance(value, str) else value
            for key, value in self.config.items()
        }
        own = {name: getattr(self, name) for name in ("compute_matched", "train_records", "evaluation")}
        return {**config, **{name: value for name, value in own.items() if value}}

    def runs(self) -> list[tuple[Row, int]]:
        """Return all runs in order of usefulness: one full seed after the other, `none` first."""
        return [(row, seed) for seed in self.seeds for row in self.rows]


def make_grid(
    name: str,
    strategies: Sequence[str] = (),
    seeds: int = 3,
    settings: Sequence[str] = (),
    controls: Sequence[str] = (),
    compute_matched: bool = False,
    train_records: int | None = None,
    evaluation: dict[str, object] | None = None,
    lengths: Sequence[str] | None = (),
) -> Grid:
    """Return the grid of a recipe.

    Args:
        name: a recipe's name or path.
        strategies: names or shell patterns; empty for the recipe's own noise. `none` is always a row.
        seeds: number of seeds, counted from 0; at least 1.
        settings: `strategy.argument=value,value` or `control.option=value,value`, one row per value; several settings
            are combined.
        controls: names of control recipes.
        compute_matched: whether a strategy of k passes trains for 1/k of the steps; adds a row of plain training for
            as many steps.
        train_records: number of training records drawn per seed; None for all.
        evaluation: options of the evaluation at the end of every run, as in `evaluation.Options`; None for no
            evaluation.
        lengths: multiples of the recipe's steps, such as `1/2` or `2`, for further rows of plain training; None for
            a quarter and half, as far as `max_steps` allows.

    Raises:
        NoiseError: for an invalid recipe, strategy, argument, control or option.
    """
    check_count("seeds", seeds, 1)
    if train_records is not None:
        check_count("train_records", train_records, 1)
    if evaluation is not None:
        read_options(evaluation)
    loaded = recipe.load(name)
    values = with_stock_noise(loaded.values)
    own = cast("str | Mapping[str, object]", values.get("noise") or "none")
    chosen: Sequence[str | Mapping[str, object]] = select(strategies) if strategies else [own]
    names = [item if isinstance(item, str) else str(item["name"]) for item in chosen]
    names += [Path(control).stem for control in controls]
    read = [read_setting(text, names) for text in settings]
    rows = [row_of("none"), *rows_of(chosen, read)]
    multiples = read_lengths(lengths, values)
    if compute_matched:
        multiples |= {Fraction(1, row.passes) for row in rows}  # baselines for strategies of k passes
    rows += length_rows(sorted(multiples, reverse=True))
    rows += [row for item in controls for row in control_rows(item, loaded, read)]
    unique = {row.key: row for row in rows}
    config = {key: value for key, value in values.items() if key not in NOT_OURS}
    rows, numbers = list(unique.values()), list(range(seeds))
    margins = read_margins(loaded.margins)
    return Grid(Path(name).stem, config, rows, numbers, compute_matched, train_records, evaluation, margins)
