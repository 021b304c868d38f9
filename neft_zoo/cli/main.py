"""The command line: `neft-zoo COMMAND`, with a module for each command."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import neft_zoo
from neft_zoo.cli.extras import check_extras
from neft_zoo.cli.parser import Parser, as_epilog, with_underscores
from neft_zoo.config.names import check_flags
from neft_zoo.console import plain_warnings, printable
from neft_zoo.errors import NoiseError, did_you_mean, shown
from neft_zoo.redaction import redacting_streams, remember_command_line

# Each module adds its commands by `add_to`. Only the chosen command's is imported, so that `neft-zoo list` is quick.
MODULES = {
    "list": "strategies",
    "show": "strategies",
    "cite": "strategies",
    "recipes": "recipes",
    "sft": "sft",
    "run": "run",
    "doctor": "doctor",
    "alpha": "alpha",
    "compare": "compare",
    "report": "report",
    "tune": "tune",
    "evaluate": "evaluate",
    "generate": "generate",
    "judge": "judge",
}
# What an interrupted command has kept.
AFTERWARDS = {
    **dict.fromkeys(
        ("compare", "tune", "generate", "judge"), "; what is done is kept, and the same command goes on from there"
    ),
    **dict.fromkeys(("evaluate", "alpha", "doctor"), "; nothing is kept, and the same command starts again"),
    "sft": "; with --resume_from_checkpoint true the same command goes on from the last checkpoint, if one was saved",
}
EXAMPLE = """
neft-zoo list
neft-zoo doctor quickstart
neft-zoo sft quickstart --noise symnoise --noise.alpha 10
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, or 2 for something that is not accepted."""
    arguments = with_underscores(sys.argv[1:] if argv is None else argv)
    remember_command_line(arguments)
    with redacting_streams(), plain_warnings():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    command = ""
    try:
        command = _command(arguments)
        options = _parser(command).parse_args(arguments)
        check_extras(command, options)
        status = options.run(options)
        sys.stdout.flush()
        return status or 0
    except NoiseError as error:
        print(f"neft-zoo: error: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `| head` has read enough
        return 0
    except KeyboardInterrupt:
        print(f"neft-zoo: interrupted{AFTERWARDS.get(command, '')}", file=sys.stderr)
        return 130


def _command(arguments: Sequence[str]) -> str:
    """Return the name of the command, empty where only help or the version is asked for.

    Raises:
        NoiseError: if there is no such command.
    """
    first = next(iter(arguments), "--help")
    if first.startswith("-"):
        check_flags([first], ("help", "version"))
        return ""
    if first not in MODULES:
        names = ", ".join(MODULES)
        raise NoiseError(f"the command must be one of {names}, got {shown(first)}{did_you_mean(first, MODULES)}")
    return first


def _parser(command: str) -> Parser:
    parser = Parser(prog="neft-zoo", description=neft_zoo.__doc__, epilog=as_epilog(EXAMPLE))
    parser.add_argument("--version", action="version", version=f"neft-zoo {neft_zoo.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in dict.fromkeys([MODULES[command]] if command else MODULES.values()):
        importlib.import_module(f"neft_zoo.cli.{module}").add_to(commands)
    return parser
