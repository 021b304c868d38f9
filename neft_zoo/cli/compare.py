"""`neft-zoo compare`: train strategies against `none`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.errors import NoiseError
from neft_zoo.files import check_folder

EXAMPLE = """
neft-zoo compare quickstart --strategies 'neft_*' --seeds 5
neft-zoo compare quickstart --set neft_uniform.alpha=5,10,15
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    command = add_command(commands, "compare", run, "train strategies against none, paired by seed", EXAMPLE)
    command.add_argument("recipes", nargs="+", metavar="RECIPE", help="a recipe's name or path")
    group = command.add_argument_group("Rows")
    group.add_argument("--strategies", default="", help="names or patterns, comma-separated (the recipe's noise)")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="STRATEGY.ARGUMENT=VALUES",
        dest="settings",
        help="one row for each value",
    )
    group.add_argument("--controls", default="", help="control recipes, comma-separated, such as label_smoothing")
    group.add_argument("--lengths", help="also plain training for so many times the steps (1/4,1/2); 1 for no other")
    group = command.add_argument_group("Runs")
    group.add_argument("--seeds", type=int, default=3, metavar="INT", help="number of seeds, from 0 (%(default)s)")
    group.add_argument("--compute_matched", action="store_true", help="train k-pass strategies for 1/k of the steps")
    group.add_argument("--train_records", type=int, metavar="INT", help="training records drawn per seed (all)")
    group.add_argument(
        "--evaluate", nargs="?", const="", metavar="OPTIONS", help="evaluate every run; 'answers: 32, records: 128'"
    )
    group = command.add_argument_group("Machine and output")
    group.add_argument("--output", type=Path, default=Path("runs/compare"), help="folder, with a subfolder per recipe")
    group.add_argument(
        "--keep_models",
        type=Path,
        metavar="FOLDER",
        help="keep trained models, to evaluate again without training",
    )
    group.add_argument("--jobs", type=int, default=1, metavar="INT", help="parallel runs, one CPU thread each if many")
    group.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster: auto, or host:port")


def run(options: argparse.Namespace) -> None:
    """Run everything that is missing in a comparison."""
    from neft_zoo.compare.grid import make_grid
    from neft_zoo.compare.processes import get_ready

    if options.ray is not None and options.jobs != 1:
        raise NoiseError(f"jobs must not be given with --ray, which does as many runs as fit, got {options.jobs}.")
    if options.jobs < 1:
        raise NoiseError(f"jobs must be a whole number >= 1, got {options.jobs}.")
    check_folder("output", options.output)
    if options.keep_models is not None:
        if options.ray is not None:
            raise NoiseError(f"keep_models must not be given with --ray, got {options.keep_models}.")
        check_folder("keep_models", options.keep_models)
    strategies, controls = _names(options.strategies), _names(options.controls)
    lengths = None if options.lengths is None else _names(options.lengths)
    shared = (options.compute_matched, options.train_records, _mapping(options.evaluate), lengths)
    grids = [
        make_grid(name, strategies, options.seeds, options.settings, controls, *shared) for name in options.recipes
    ]
    if len({grid.recipe for grid in grids}) < len(grids):
        raise NoiseError(f"recipes must have different names, got {', '.join(options.recipes)}.")
    if options.ray is None:
        get_ready(all(grid.config.get("use_cpu") for grid in grids))
    from neft_zoo.compare.progress import follow

    follow(grids, options.output, options.jobs, options.ray, options.keep_models)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _mapping(text: str | None) -> dict[str, Any] | None:
    """Return the options of an evaluation, or None without one."""
    if text is None:
        return None
    import yaml

    try:
        found = yaml.safe_load(f"{{{text}}}")
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise NoiseError(f"evaluate must be options such as 'answers: 32, records: 128', got {text!r}.")
    return found
