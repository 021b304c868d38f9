"""`neft-zoo alpha`: its options, read without torch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from neft_zoo.console import quiet
from neft_zoo.errors import NoiseError, shown


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
    if output.exists() and not output.is_dir():
        raise NoiseError(f"output must be a folder, got {output}.")
    from neft_zoo.evaluation import strength_sweep as alpha
    from neft_zoo.evaluation.plots import require
    from neft_zoo.evaluation.report import whole

    if not options.no_plots:
        require()  # before anything is computed
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
