"""`neft-zoo doctor`: measure what noise does on a recipe's batches."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from neft_zoo.cli.frameworks import read_framework
from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.cli.trl_options import help_page, read_command_line
from neft_zoo.config.noise_flags import take_noise
from neft_zoo.console import quiet, say, say_written_over
from neft_zoo.files import check_output, write_json

if TYPE_CHECKING:
    from neft_zoo.doctor.report import DoctorReport

SUMMARY = "measure what noise does on a recipe's batches; trains nothing"
EXAMPLE = """
neft-zoo doctor quickstart
neft-zoo doctor my.yaml --packing true --json doctor.json
neft-zoo doctor axolotl train.yaml --noise neft_uniform
"""
# Frameworks whose trainers `integrations/building.py` builds from their own files, with the real model.
FRAMEWORKS = ("axolotl", "llamafactory", "swift")


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    command = add_command(commands, "doctor", run, SUMMARY, EXAMPLE, passes_on=True)
    add_own(command)


def add_own(command: argparse.ArgumentParser) -> None:
    """Add the options that TRL does not have."""
    group = command.add_argument_group("Doctor")
    group.add_argument("--real_model", action="store_true", help="load the real model instead of a shrunk one")
    group.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to this file")


def run(options: argparse.Namespace) -> None:
    """Examine a recipe, print the comparison, and write it to the file of `--json`."""
    if options.help:
        print(help_page("doctor", SUMMARY, EXAMPLE, add_own))
        return
    if options.json is not None:
        check_output("json", options.json)
        say_written_over(options.json)
    report = of_framework(options.flags) if framework_of(options.flags) else of_recipe(options)
    from neft_zoo.doctor.report import show

    show(report)
    if options.json is not None:
        write_json(options.json, report.to_dict())


def framework_of(flags: list[str]) -> bool:
    """Return whether a command line names a framework instead of a recipe."""
    return next(iter(take_noise(flags, "none")[0]), "") in FRAMEWORKS


def of_recipe(options: argparse.Namespace) -> DoctorReport:
    """Return the report on a recipe."""
    values, origin = read_command_line(options.flags, "doctor", ("real_model", "json"))
    from neft_zoo.doctor.examine import examine

    say("loading data and model")
    with quiet():
        return examine(values, origin, options.real_model)


def of_framework(flags: list[str]) -> DoctorReport:
    """Return the report on a trainer that another framework builds from its config file."""
    framework, values, noise = read_framework(flags, "doctor", FRAMEWORKS, ("real_model", "json"))
    from neft_zoo.doctor.of_trainer import examine_trainer
    from neft_zoo.integrations.building import build

    say(f"{framework} loads data and model")
    # Output of the framework is not part of the report.
    with quiet(), redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        return examine_trainer(build(framework, values, noise, Path(folder)))
