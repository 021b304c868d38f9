"""`neft-zoo report`: tables and plots of a comparison."""

from __future__ import annotations

import argparse
from pathlib import Path

from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.console import fitted_markdown, say_written_over
from neft_zoo.files import check_output

EXAMPLE = """
neft-zoo report runs/compare/quickstart
neft-zoo report runs/compare/quickstart --format html
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    command = add_command(commands, "report", run, "tables and plots of a comparison", EXAMPLE)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="results of one recipe")
    command.add_argument("--format", choices=("md", "csv", "html"), default="md", help="of the report (%(default)s)")
    command.add_argument("--output", type=Path, help="file (standard output; for html FOLDER/report.html)")


def run(options: argparse.Namespace) -> None:
    """Print or write a report."""
    if options.output is not None:
        check_output("output", options.output)
    output = options.output or (options.folder / "report.html" if options.format == "html" else None)
    if output is not None:
        say_written_over(output)
    from neft_zoo.compare.report import write_report

    text = write_report(options.folder, options.format, options.output)
    if text is None:
        print(output)
    else:
        print(fitted_markdown(text) if options.format == "md" else text, end="")
