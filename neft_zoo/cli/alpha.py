"""`neft-zoo alpha`: sweep the strength of noise on a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path

from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.config.noise_flags import read_noise
from neft_zoo.console import quiet, say, say_written_over
from neft_zoo.files import check_folder, locked, make_folder, write_json


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    summary = "sweep the strength of noise on a recipe and recommend a range"
    example = "neft-zoo alpha quickstart\nneft-zoo alpha my.yaml --noise neft_gaussian --steps 100"
    command = add_command(commands, "alpha", run, summary, example)
    command.add_argument("recipe", metavar="RECIPE", help="a recipe's name or path")
    group = command.add_argument_group("Sweep")
    group.add_argument("--noise", help="name, or YAML mapping; default: the recipe's, or neft_uniform")
    group.add_argument("--steps", type=int, default=16, metavar="INT", help="steps before the sweep (%(default)s)")
    group.add_argument("--records", type=int, default=96, metavar="INT", help="training records (%(default)s)")
    group.add_argument("--points", type=int, default=13, metavar="INT", help="strengths (%(default)s)")
    group = command.add_argument_group("Output")
    group.add_argument("--output", type=Path, help="folder for alpha.json and alpha.png (runs/alpha/RECIPE)")
    group.add_argument("--no_plots", action="store_true", help="write the numbers only")


def run(options: argparse.Namespace) -> None:
    """Run the sweep, write numbers and plot, and print the table and the recommendation."""
    noise = read_noise(options.noise)
    output = options.output or Path("runs/alpha") / Path(options.recipe).stem
    check_folder("output", output)
    from neft_zoo.evaluation.strength_sweep import find_alpha
    from neft_zoo.evaluation.sweep_report import draw, table

    numbers, plot = output / "alpha.json", output / "alpha.png"
    with locked("output", output):
        say_written_over(numbers, *([] if options.no_plots else [plot]))
        say("loading data and model")
        with quiet():
            report = find_alpha(options.recipe, noise, options.steps, options.records, options.points)
        print(table(report), report.advice, "", sep="\n")
        make_folder(output)
        write_json(numbers, report.to_dict(), indent=1)
        print(numbers, *([] if options.no_plots else [draw(report, plot)]), sep="\n")
