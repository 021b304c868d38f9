"""`neft-zoo doctor`: measure what noise does on a recipe's batches."""

from __future__ import annotations

import argparse
from pathlib import Path

from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.cli.trl_options import help_page, read_command_line
from neft_zoo.console import quiet, say, say_written_over
from neft_zoo.files import check_output, write_json

SUMMARY = "measure what noise does on a recipe's batches; trains nothing"
EXAMPLE = """
neft-zoo doctor quickstart
neft-zoo doctor my.yaml --packing true --json doctor.json
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line's."""
    command = add_command(commands, "doctor", run, SUMMARY, EXAMPLE, passes_on=True)
    add_own(command)


def add_own(command: argparse.ArgumentParser) -> None:
    """Add the options that TRL does not have."""
    group = command.add_argument_group("Doctor")
    group.add_argument("--real_model", action="store_true", help="load the model itself, not a shrunk one")
    group.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")


def run(options: argparse.Namespace) -> None:
    """Examine a recipe, print the comparison, and write it where `--json` says."""
    if options.help:
        print(help_page("doctor", SUMMARY, EXAMPLE, add_own))
        return
    if options.json is not None:
        check_output("json", options.json)
        say_written_over(options.json)
    values, origin = read_command_line(options.flags, "doctor", ("real_model", "json"))
    from neft_zoo.doctor.examine import examine
    from neft_zoo.doctor.report import show

    say("loading data and model")
    with quiet():
        report = examine(values, origin, options.real_model)
    show(report)
    if options.json is not None:
        write_json(options.json, report.to_dict())
