"""`neft-zoo sft` in several processes: the command starts itself again through `accelerate launch`."""

from __future__ import annotations

import difflib
import sys
from importlib.resources import files
from pathlib import Path
from subprocess import CalledProcessError
from typing import NoReturn

from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from neft_zoo.config.options import Parser, read
from neft_zoo.errors import NoiseError
from neft_zoo.training.hf_internals import flags_of

FLAG = "--accelerate_config"
FOLDERS = ("trl.accelerate_configs", "neft_zoo.cli.accelerate_configs")


def config_names() -> list[str]:
    """Return the names that `--accelerate_config` takes: TRL's and ours."""
    shipped = [item.name for folder in FOLDERS for item in files(folder).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in shipped if name.endswith(".yaml"))


def find_config(name: str) -> Path:
    """Return the accelerate config of a name, or a path.

    Raises:
        NoiseError: if there is none.
    """
    shipped = [Path(str(files(folder).joinpath(f"{name}.yaml"))) for folder in FOLDERS]
    for path in (Path(name).expanduser(), *shipped):
        if path.is_file():
            return path
    near = difflib.get_close_matches(name, config_names(), n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    names = ", ".join(config_names())
    raise NoiseError(f"accelerate_config must be a YAML file or one of {names}, got {name!r}{hint}")


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Return the options of `accelerate launch` in a command line, and the rest.

    An option that TRL has as well is TRL's.

    Raises:
        NoiseError: if an option lacks its value, or names no config.
    """
    theirs = flags_of(launch_command_parser())
    ours = flags_of(Parser())
    engine: list[str] = []
    rest: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        flag, has_value, value = argument.partition("=")
        action = theirs.get(flag)
        if flag != FLAG and (action is None or not flag.startswith("--") or flag in ours):
            rest.append(argument)
            continue
        if action is not None and action.nargs == 0:
            engine.append(argument)
            continue
        value = value if has_value else next(arguments, "")
        if not value:
            raise NoiseError(f"{flag} needs a value.")
        engine += ["--config_file", str(find_config(value))] if flag == FLAG else [flag, value]
    return engine, rest


def _refuse(message: str) -> NoReturn:
    raise NoiseError(f"the options do not fit: {' '.join(message.split())[:500]}.")


def start(engine: list[str], rest: list[str]) -> int:
    """Run `neft-zoo sft` with `rest` in the processes that `engine` asks for; return the exit status.

    Raises:
        NoiseError: before a process is started, if an option is not accepted.
    """
    reader, told = read(rest)
    reader.parse_args(told)  # one message from here rather than one from every process
    parser = launch_command_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    options = parser.parse_args([*engine, "--module", "neft_zoo", "sft", *rest])
    try:
        launch_command(options)
    except ValueError as error:
        raise NoiseError(f"accelerate does not accept the options: {' '.join(str(error).split())}") from None
    except (ChildFailedError, CalledProcessError):
        print("neft-zoo: error: a training process failed; its own message stands above.", file=sys.stderr)
        return 1
    return 0
