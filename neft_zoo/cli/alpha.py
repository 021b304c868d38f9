"""`neft-zoo alpha`: its options, read without torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from neft_zoo.console import quiet
from neft_zoo.errors import NoiseError, shown
from neft_zoo.files import check_folder, make_folder, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a parser."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name or path")
    parser.add_argument("--noise", help="name, or YAML mapping with arguments; default: the recipe's, or neft_uniform")
    parser.add_argument("--steps", type=int, default=16, help="training steps before the sweep (%(default)s)")
    parser.add_argument("--records", type=int, default=96, help="training records to measure (%(default)s)")
    parser.add_argument("--points", type=int, default=13, help="strengths to measure (%(default)s)")
    parser.add_argument("--output", type=Path, help="folder for alpha.json and alpha.png (runs/alpha/RECIPE)")
    parser.add_argument("--no_plots", action="store_true", help="write the numbers only")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Sweep, write numbers and plot, and print the table and what it recommends."""
    noise = read_noise(options.noise)
    output = options.output or Path("runs/alpha") / Path(options.recipe).stem
    check_folder("output", output)
    from neft_zoo.evaluation.plots import require_matplotlib
    from neft_zoo.evaluation.strength_sweep import find_alpha
    from neft_zoo.evaluation.sweep_report import draw, table

    if not options.no_plots:
        require_matplotlib()  # before anything is computed
    with quiet():
        report = find_alpha(options.recipe, noise, options.steps, options.records, options.points)
    print(table(report), report.advice, "", sep="\n")
    write_json(make_folder(output) / "alpha.json", report.to_dict(), indent=1)
    paths = [output / "alpha.json"]
    if not options.no_plots:
        paths.append(draw(report, output / "alpha.png"))
    print(*paths, sep="\n")


def read_noise(text: str | None) -> Any:
    """Return a name or a mapping with a name."""
    from neft_zoo.config.recipe import read_yaml

    if text is None or text.isidentifier():
        return text
    try:
        value = read_yaml(text)[1]
    except ValueError:
        value = None
    if not isinstance(value, str | dict):
        raise NoiseError(f"noise must be a name or a mapping with a name, got {shown(text)}.")
    return value
