"""`neft-zoo alpha`: sweep the strength of noise on a recipe."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.config.noise_flags import read_noise
from neft_zoo.console import quiet
from neft_zoo.errors import NoiseError


def add_to(commands: Commands) -> None:
    """Add the command to the command line's."""
    summary = "sweep the strength of noise on a recipe and recommend a range"
    example = "neft-zoo alpha quickstart\nneft-zoo alpha my.yaml --noise neft_gaussian --steps 100"
    command = add_command(commands, "alpha", run, summary, example)
    command.add_argument("recipe", metavar="RECIPE", help="a recipe's name or path")
    group = command.add_argument_group("Sweep")
    group.add_argument("--noise", help="name, or YAML mapping; default: the recipe's, or neft_uniform")
    group.add_argument("--steps", type=int, default=16, metavar="INT", help="training steps before it (%(default)s)")
    group.add_argument("--records", type=int, default=96, metavar="INT", help="training records (%(default)s)")
    group.add_argument("--points", type=int, default=13, metavar="INT", help="strengths (%(default)s)")
    group = command.add_argument_group("Output")
    group.add_argument("--output", type=Path, help="folder for alpha.json and alpha.png (runs/alpha/RECIPE)")
    group.add_argument("--no_plots", action="store_true", help="write the numbers only")


def run(options: argparse.Namespace) -> None:
    """Sweep, write numbers and plot, and print the table and what it recommends."""
    noise = read_noise(options.noise)
    output = options.output or Path("runs/alpha") / Path(options.recipe).stem
    if output.exists() and not output.is_dir():
        raise NoiseError(f"output must be a folder, got {output}.")
    from neft_zoo.evaluation import strength_sweep as alpha
    from neft_zoo.evaluation.report import whole

    with quiet():
        report = alpha.find_alpha(options.recipe, noise, options.steps, options.records, options.points)
    report["advice"] = alpha.advice(report)
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    paths = [whole(output / "alpha.json", lambda path: path.write_text(text, encoding="utf-8"))]
    if not options.no_plots:
        paths.append(alpha.draw(report, output / "alpha.png"))
    print(table(report), report["advice"], "", *paths, sep="\n")


def table(report: dict[str, Any]) -> str:
    """Return the points as aligned text."""
    lines = [f"{report['argument']:>10}  {'SNR, dB':>8}  {'noisy loss':>10}  {'over clean':>10}"]
    for point in report["points"]:
        share = point["excess"] / report["clean_loss"]
        lines.append(f"{point['strength']:>10.3g}  {point['snr_db']:>8.1f}  {point['loss']:>10.4f}  {share:>10.1%}")
    about = f"clean loss {report['clean_loss']:.4f} after {report['steps']} steps, {report['records']} records"
    return "\n".join([f"{report['noise']['name']}: {about}, {report['seconds']:.0f} s", "", *lines, ""])
