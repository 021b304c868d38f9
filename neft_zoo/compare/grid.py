"""The grid of a comparison: recipe x strategies, argument grids and controls x seeds."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import yaml

from neft_zoo import registry
from neft_zoo.config import recipe
from neft_zoo.errors import NoiseError
from neft_zoo.evaluation.options import read_options
from neft_zoo.noise.schedules import check_count

# Where a run writes and what it prints does not change its numbers, and is the runner's business.
NOT_OURS = frozenset(
    "disable_tqdm extends hub_model_id hub_strategy load_best_model_at_end logging_dir noise output_dir "
    "push_to_hub report_to resume_from_checkpoint run_name save_steps save_strategy save_total_limit seed".split()
)
LARGE = 64 * 2**20  # bytes; a larger file is told from another by size and time


@dataclass(frozen=True)
class Row:
    """What is compared: a strategy, or a control without noise.

    Attributes:
        noise: name and all arguments, as `registry.make` reads them back.
        version: of the entry.
        passes: forward passes per batch.
        control: name of the control recipe, "" for a strategy.
        overrides: trainer options that the control changes.
    """

    noise: dict[str, object]
    version: int
    passes: int
    control: str = ""
    overrides: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.control or str(self.noise["name"])

    @property
    def key(self) -> str:
        return digest([self.noise, self.version, self.control, self.overrides])


@dataclass(frozen=True)
class Grid:
    """All runs of a comparison.

    Attributes:
        recipe: name of the recipe.
        config: its options, without those that change no number.
        rows: `none` first.
        seeds: of data order, dropout and noise; each seed pairs the rows.
        compute_matched: whether a strategy of k passes trains for 1/k of the steps.
        train_records: how many training records each seed draws; None for all.
        evaluation: options of the evaluation at the end of every run; None for none.
    """

    recipe: str
    config: dict[str, object]
    rows: list[Row]
    seeds: list[int]
    compute_matched: bool = False
    train_records: int | None = None
    evaluation: dict[str, object] | None = None

    @property
    def graded(self) -> bool | None:
        """Whether the recipe grades completions only; None where the columns of the data decide."""
        return cast("bool | None", self.config.get("completion_only_loss"))

    @property
    def settings(self) -> dict[str, object]:
        """What all runs share and what determines their numbers; shipped files by their place among the recipes."""
        shipped = str(recipe.folder())
        config = {
            key: value.replace(shipped, recipe.PLACEHOLDER) if isinstance(value, str) else value
            for key, value in self.config.items()
        }
        own = {name: getattr(self, name) for name in ("compute_matched", "train_records", "evaluation")}
        return {**config, **{name: value for name, value in own.items() if value}}

    def runs(self) -> list[tuple[Row, int]]:
        """Return all runs in the order in which they are useful: a whole seed after the other, `none` first."""
        return [(row, seed) for seed in self.seeds for row in self.rows]


def digest(value: object) -> str:
    """Return a short hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def fingerprint(config: Mapping[str, object]) -> str:
    """Return a hash of a recipe's options, with the contents of local model and data instead of their paths."""
    named = {key: str(config[key]) for key in ("model_name_or_path", "dataset_name") if config.get(key)}
    paths = {key: Path(name.replace(recipe.PLACEHOLDER, str(recipe.folder()))) for key, name in named.items()}
    local = {key: _contents(path.expanduser()) for key, path in paths.items() if path.expanduser().exists()}
    return digest({**config, **local})


def _contents(path: Path) -> list[list[object]]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    contents: list[list[object]] = []
    for file in files:
        stat = file.stat()
        large = stat.st_size > LARGE
        contents.append([file.name, stat.st_mtime_ns if large else hashlib.sha256(file.read_bytes()).hexdigest()])
    return contents


def make_grid(
    name: str,
    strategies: Sequence[str] = (),
    seeds: int = 3,
    settings: Sequence[str] = (),
    controls: Sequence[str] = (),
    compute_matched: bool = False,
    train_records: int | None = None,
    evaluation: dict[str, object] | None = None,
) -> Grid:
    """Return the grid of a recipe.

    Args:
        name: a recipe's name or path.
        strategies: names or shell patterns; none given means the recipe's own noise. `none` is always a row.
        seeds: how many, from 0; at least 1.
        settings: `strategy.argument=value,value`, a row per value; several make a grid.
        controls: names of control recipes.
        compute_matched: whether a strategy of k passes trains for 1/k of the steps.
        train_records: how many training records each seed draws; None for all.
        evaluation: options of the evaluation at the end of every run, as in `evaluation.Options`; None for none.

    Raises:
        NoiseError: for a recipe, strategy, argument, control or option that is not accepted.
    """
    check_count("seeds", seeds, 1)
    if train_records is not None:
        check_count("train_records", train_records, 1)
    if evaluation is not None:
        read_options(evaluation)
    loaded = recipe.load(name)
    own = loaded.values.get("noise") or "none"
    chosen = _select(strategies) if strategies else ([own] if isinstance(own, str) else [dict(own)])
    rows = [row_of("none"), *_with_settings(chosen, settings), *(_control(item, loaded) for item in controls)]
    unique = {row.key: row for row in rows}
    config = {key: value for key, value in loaded.values.items() if key not in NOT_OURS}
    rows, numbers = list(unique.values()), list(range(seeds))
    return Grid(Path(name).stem, config, rows, numbers, compute_matched, train_records, evaluation)


def row_of(noise: str | Mapping[str, object]) -> Row:
    """Return the row of a strategy."""
    strategy = registry.make(noise)
    return Row(strategy.to_dict(), strategy.version, strategy.objective.passes)


def _select(patterns: Iterable[str]) -> list[str]:
    selected: list[str] = []
    for pattern in patterns:
        matching = fnmatch.filter(registry.names(), pattern)
        if not matching and not set(pattern) & set("*?["):
            registry.entry(pattern)  # says which names are near
        if not matching:
            raise NoiseError(f"strategies must match a name, got {pattern!r}; neft-zoo list shows all of them.")
        selected += matching
    return list(dict.fromkeys(selected))


def _with_settings(chosen: Sequence[str | Mapping[str, object]], settings: Sequence[str]) -> list[Row]:
    """Return a row per strategy and combination of its argument values."""
    noises: list[Mapping[str, object]] = [{"name": item} if isinstance(item, str) else item for item in chosen]
    grids: list[dict[str, list[object]]] = [{} for _ in noises]
    for setting in settings:
        pattern, argument, values = _read_setting(setting)
        matching = [index for index, noise in enumerate(noises) if fnmatch.fnmatch(str(noise["name"]), pattern)]
        if not matching:
            raise NoiseError(f"set must name a chosen strategy, got {pattern!r} in {setting!r}.")
        for index in matching:
            grids[index][argument] = values
    return [
        row_of({**noise, **dict(zip(grid, values, strict=True))})
        for noise, grid in zip(noises, grids, strict=True)
        for values in itertools.product(*grid.values())
    ]


def _read_setting(setting: str) -> tuple[str, str, list[object]]:
    target, equals, text = setting.partition("=")
    pattern, dot, argument = target.partition(".")
    try:
        values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError:
        values = None
    if not (equals and dot and argument and values):
        raise NoiseError(f"set must be strategy.argument=value,value, got {setting!r}.")
    return pattern, argument, values


def _control(name: str, loaded: recipe.Recipe) -> Row:
    """Return the row of a control recipe: its own options on top of the recipe that is compared."""
    control, path = recipe.load(name), recipe.find(name)
    own = {key for key, where in control.origin.items() if where.rpartition(" line ")[0] == str(path)}
    overrides = {key: control.values[key] for key in sorted(own - NOT_OURS)}
    if not overrides:
        raise NoiseError(f"controls must be recipes that change an option, got {name!r}.")
    if "use_peft" in overrides and overrides["use_peft"] != bool(loaded.values.get("use_peft")):
        raise NoiseError(f"control {name!r} needs use_peft: {str(overrides['use_peft']).lower()} in the recipe.")
    return Row(registry.make("none").to_dict(), registry.entry("none").version, 1, Path(name).stem, overrides)
