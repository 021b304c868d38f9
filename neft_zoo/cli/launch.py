"""`neft-zoo sft` in several processes: the command restarts itself through `accelerate launch`."""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files
from pathlib import Path
from subprocess import CalledProcessError
from typing import NoReturn

from neft_zoo.cli.trl_options import read_command_line
from neft_zoo.config.declared import config_options, launch_options
from neft_zoo.errors import NoiseError, did_you_mean, one_line

FLAG = "--accelerate_config"
FOLDERS = ("trl.accelerate_configs", "neft_zoo.cli.accelerate_configs")


def config_names() -> list[str]:
    """Return the names that `--accelerate_config` accepts: TRL's and ours."""
    shipped = [item.name for folder in FOLDERS for item in files(folder).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in shipped if name.endswith(".yaml"))


def find_config(name: str) -> Path:
    """Return the accelerate config for a name or a path.

    Raises:
        NoiseError: if it does not exist.
    """
    shipped = [Path(str(files(folder).joinpath(f"{name}.yaml"))) for folder in FOLDERS]
    for path in (Path(name).expanduser(), *shipped):
        if path.is_file():
            return path
    names = config_names()
    near = did_you_mean(name, names)
    raise NoiseError(f"accelerate_config must be a YAML file or one of {', '.join(names)}, got {name!r}{near}")


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the options of `accelerate launch` and the rest.

    An option that TRL has too is left to TRL.

    Raises:
        NoiseError: if an option has no value, or a config does not exist.
    """
    theirs, ours = launch_options(), config_options()
    engine: list[str] = []
    rest: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        flag, has_value, value = argument.partition("=")
        name = flag.removeprefix("--")
        if flag != FLAG and (name == flag or name not in theirs or name in ours):
            rest.append(argument)
            continue
        if flag != FLAG and not theirs[name]:
            engine.append(argument)
            continue
        value = value if has_value else next(arguments, "")
        if not value:
            raise NoiseError(f"{flag} needs a value.")
        engine += ["--config_file", str(find_config(value))] if flag == FLAG else [flag, value]
    return engine, rest


def names() -> list[str]:
    """Return the names of the flags for several processes."""
    return [FLAG.removeprefix("--"), *launch_options()]


def add_own(parser: argparse.ArgumentParser) -> None:
    """Add the options for several processes to the help of `sft`."""
    group = parser.add_argument_group("Processes", "These, and all other options of accelerate launch:")
    group.add_argument(FLAG, metavar="NAME", help=f"one of {', '.join(config_names())}, or a file")
    group.add_argument("--num_processes", metavar="INT", help="number of processes on all machines")


def _refuse(message: str) -> NoReturn:
    raise NoiseError(f"the options do not fit: {one_line(message, 500)}.")


def start(engine: list[str], rest: list[str]) -> int:
    """Run `neft-zoo sft` with the options `rest` in the processes given by `engine`, and return the exit status.

    Raises:
        NoiseError: before a process is started, if an option is invalid.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    read_command_line(rest, "sft", names())  # report errors once, not in every process
    parser = launch_command_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    options = parser.parse_args([*engine, "--module", "neft_zoo", "sft", *rest])
    try:
        launch_command(options)
    except ValueError as error:
        raise NoiseError(f"accelerate does not accept the options: {one_line(error)}.") from None
    except (ChildFailedError, CalledProcessError):
        print("neft-zoo: error: a training process failed; its own message stands above.", file=sys.stderr)
        return 1
    return 0
