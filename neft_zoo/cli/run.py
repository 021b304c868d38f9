"""`neft-zoo run`: another framework's training command, with `noise`."""

from __future__ import annotations

import argparse
from importlib import import_module

from neft_zoo.cli.frameworks import USAGE, read_framework
from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.errors import NoiseError

FRAMEWORKS = ("llamafactory",)
SUMMARY = "train with another framework's command and file, under noise"
EXAMPLE = """
neft-zoo run llamafactory train.yaml --noise symnoise
neft-zoo run llamafactory train.yaml --noise.alpha 10 learning_rate=1e-4
torchrun --nproc_per_node 8 -m neft_zoo run llamafactory train.yaml
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    command = add_command(commands, "run", run, SUMMARY, EXAMPLE, passes_on=True)
    command.usage = f"neft-zoo run {USAGE}"
    command.set_defaults(print_help=command.print_help)


def run(options: argparse.Namespace) -> None:
    """Remove the noise from a framework's options, and train with the rest."""
    if options.help:
        options.print_help()
        return
    framework, values, noise = read_framework(options.flags, "run", FRAMEWORKS)
    if noise is None:
        raise NoiseError("noise must be given, in the file or as --noise NAME, got none; 'none' trains without.")
    import_module(f"neft_zoo.integrations.{framework}").train(values, noise)
