"""`neft-zoo compare`, `report` and `tune`: options; what they do is imported late."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from neft_zoo.cli.alpha import read_noise
from neft_zoo.errors import NoiseError


def add_to(commands: Any) -> None:
    """Add the commands to the command line's."""
    command = commands.add_parser("compare", help="train strategies against none, paired by seed")
    command.add_argument("recipes", nargs="+", metavar="RECIPE", help="a recipe's name or path")
    command.add_argument("--strategies", default="", help="names or patterns with commas; default: the recipe's noise")
    command.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0; default 3")
    command.add_argument("--set", action="append", default=[], metavar="STRATEGY.ARGUMENT=VALUES", dest="settings")
    command.add_argument("--controls", default="", help="control recipes with commas, such as label_smoothing")
    command.add_argument("--compute-matched", action="store_true", help="train k-pass strategies for 1/k of the steps")
    command.add_argument("--train_records", type=int, metavar="N", help="each seed draws N training records")
    command.add_argument(
        "--evaluate", nargs="?", const="", metavar="OPTIONS", help="evaluate every run; 'answers: 32, records: 128'"
    )
    command.add_argument("--output", type=Path, default=Path("runs/compare"), help="folder; one inside per recipe")
    command.add_argument("--jobs", type=int, default=1, help="runs at a time, one CPU thread each where several")
    command.add_argument("--ray", metavar="ADDRESS", help="do the runs on a Ray cluster: auto, or host:port")
    command.set_defaults(run=compare)

    command = commands.add_parser("report", help="tables and plots of a comparison")
    command.add_argument("folder", type=Path)
    command.add_argument("--format", choices=("md", "csv", "html"), default="md")
    command.add_argument("--output", type=Path, help="file; default: standard output, DIR/report.html for html")
    command.set_defaults(run=report)

    command = commands.add_parser("tune", help="search alpha and other numbers with Optuna, against none")
    command.add_argument("recipe", metavar="RECIPE", help="a recipe's name or path")
    command.add_argument(
        "--noise", help="name, or YAML mapping with arguments; default: the recipe's, or neft_uniform"
    )
    command.add_argument("--search", action="append", default=[], metavar="NAME=LOW:HIGH[:log] or NAME=VALUE,VALUE")
    command.add_argument("--trials", type=int, default=20, help="of the study in all; default 20")
    command.add_argument("--seeds", type=int, default=3, help="fresh seeds for the best against none; default 3")
    command.add_argument("--train_records", type=int, metavar="N", help="each seed draws N training records")
    command.add_argument("--storage", help="database of the study, any that Optuna can use; default: SQLite in output")
    command.add_argument("--output", type=Path, default=Path("runs/tune"), help="folder; one inside per recipe")
    command.set_defaults(run=tune)


def compare(options: argparse.Namespace) -> None:
    """Do what is missing of a comparison."""
    from neft_zoo.compare.grid import make_grid
    from neft_zoo.compare.processes import get_ready

    if options.ray is not None and options.jobs != 1:
        raise NoiseError(f"jobs must not be given with --ray, which does as many runs as fit, got {options.jobs}.")
    if options.jobs < 1:
        raise NoiseError(f"jobs must be a whole number >= 1, got {options.jobs}.")
    strategies, controls = _names(options.strategies), _names(options.controls)
    shared = (options.compute_matched, options.train_records, _mapping(options.evaluate))
    grids = [
        make_grid(name, strategies, options.seeds, options.settings, controls, *shared) for name in options.recipes
    ]
    if len({grid.recipe for grid in grids}) < len(grids):
        raise NoiseError(f"recipes must have different names, got {', '.join(options.recipes)}.")
    if options.ray is None:
        get_ready(all(grid.config.get("use_cpu") for grid in grids))
    from neft_zoo.compare.progress import follow

    follow(grids, options.output, options.jobs, options.ray)


def report(options: argparse.Namespace) -> None:
    """Print or write a report."""
    from neft_zoo.compare.report import write_report

    text = write_report(options.folder, options.format, options.output)
    print(options.output or options.folder / "report.html" if text is None else text, end="\n" if text is None else "")


def tune(options: argparse.Namespace) -> None:
    """Do what is missing of a search, and say what its best is worth."""
    from neft_zoo.noise.schedules import check_count

    check_count("trials", options.trials, 1)
    check_count("seeds", options.seeds)
    noise = read_noise(options.noise)
    from neft_zoo.compare import best
    from neft_zoo.compare import search as searching

    search = searching.open_search(
        options.recipe, noise, options.search, options.output, options.storage, options.train_records
    )
    searching.tune(search, options.trials)
    print(best.describe(best.confirm(search, options.seeds)))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _mapping(text: str | None) -> dict[str, Any] | None:
    """Return the options of an evaluation, None without one."""
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
