"""`neft-zoo tune`: search for a strategy's arguments with Optuna."""

from __future__ import annotations

import argparse
from pathlib import Path

from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.config.noise_flags import read_noise
from neft_zoo.console import say
from neft_zoo.files import check_folder

EXAMPLE = """
neft-zoo tune quickstart --trials 30
neft-zoo tune quickstart --search alpha=1:20:log --search lora_r=8,16
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    summary = "search alpha and other numbers with Optuna, and compare with none"
    command = add_command(commands, "tune", run, summary, EXAMPLE)
    command.add_argument("recipe", metavar="RECIPE", help="a recipe's name or path")
    group = command.add_argument_group("Search")
    group.add_argument("--noise", help="name, or YAML mapping; default: the recipe's, or neft_uniform")
    group.add_argument(
        "--search",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="LOW:HIGH, LOW:HIGH:log or VALUE,VALUE; default: the strength around its value",
    )
    group.add_argument("--trials", type=int, default=20, metavar="INT", help="trials in the whole study (%(default)s)")
    group.add_argument(
        "--seeds", type=int, default=3, metavar="INT", help="new seeds for the best and none (%(default)s)"
    )
    group.add_argument("--train_records", type=int, metavar="INT", help="training records drawn per seed (all)")
    group = command.add_argument_group("Output")
    group.add_argument("--storage", metavar="URL", help="Optuna database of the study (SQLite in output)")
    group.add_argument("--output", type=Path, default=Path("runs/tune"), help="folder, with a subfolder per recipe")


def run(options: argparse.Namespace) -> None:
    """Run the missing trials of a search, and report what its best is worth."""
    from neft_zoo.noise.schedules import check_count

    check_count("trials", options.trials, 1)
    check_count("seeds", options.seeds)
    check_folder("output", options.output)
    noise = read_noise(options.noise)
    say("reading data")
    from neft_zoo.compare import best
    from neft_zoo.compare import search as searching

    search = searching.open_search(
        options.recipe, noise, options.search, options.output, options.storage, options.train_records
    )
    searching.tune(search, options.trials)
    print(best.describe(best.confirm(search, options.seeds)))
