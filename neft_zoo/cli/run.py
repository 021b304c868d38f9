"""`neft-zoo run`: another framework's training command, with `noise`."""

from __future__ import annotations

import argparse
from importlib import import_module

from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.config.names import check_flags
from neft_zoo.config.noise_flags import take_noise
from neft_zoo.errors import NoiseError, did_you_mean, shown

FRAMEWORKS = ("llamafactory",)
SUMMARY = "train with another framework's command and file, under noise"
EXAMPLE = """
neft-zoo run llamafactory train.yaml --noise symnoise
neft-zoo run llamafactory train.yaml --noise.alpha 10 learning_rate=1e-4
neft-zoo run llamafactory train.yaml --noise neft_uniform --doctor
torchrun --nproc_per_node 8 -m neft_zoo run llamafactory train.yaml
"""
USAGE = "FRAMEWORK FILE [NAME=VALUE ...] [--noise NAME] [--doctor]"


def add_to(commands: Commands) -> None:
    """Add the command to the command line's."""
    command = add_command(commands, "run", run, SUMMARY, EXAMPLE, passes_on=True)
    command.usage = f"neft-zoo run {USAGE}"
    command.add_argument("--doctor", action="store_true", help="measure the noise on its batches; trains nothing")
    command.set_defaults(print_help=command.print_help)


def run(options: argparse.Namespace) -> None:
    """Take the noise out of a framework's options, and train with the rest."""
    if options.help:
        options.print_help()
        return
    framework, file, overrides = read_flags(options.flags)
    host = import_module(f"neft_zoo.integrations.{framework}")
    values = host.read(file, overrides)
    noise = take_noise(options.flags, values.pop("noise", None))[1]
    if noise is None:
        raise NoiseError(f"noise must be given, in {file} or as --noise NAME, got none; 'none' trains without.")
    if options.doctor:
        from neft_zoo.doctor.of_trainer import examine_trainer
        from neft_zoo.doctor.report import show

        show(examine_trainer(host.build(values), noise))
        return
    host.train(values, noise)


def read_flags(flags: list[str]) -> tuple[str, str, list[str]]:
    """Return the framework, its file, and the options that replace the file's.

    Raises:
        NoiseError: if one is missing, not known, or not written `NAME=VALUE`.
    """
    given = take_noise(flags, "none")[0]
    check_flags(given, ("help", "noise", "doctor"))
    if len(given) < 2:
        raise NoiseError(f"run needs {USAGE}, got {shown(' '.join(given))}.")
    framework, file, *overrides = given
    if framework not in FRAMEWORKS:
        near = did_you_mean(framework, FRAMEWORKS)
        raise NoiseError(f"the framework must be one of {', '.join(FRAMEWORKS)}, got {shown(framework)}{near}")
    for each in overrides:
        if "=" not in each:
            raise NoiseError(f"options of {framework} must be written NAME=VALUE, got {shown(each)}.")
    return framework, file, overrides
