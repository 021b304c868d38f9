"""The command line: `neft-zoo COMMAND`, with one module per command."""

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

# Modules add their commands by `add_to`. Only the chosen one is imported, which keeps `neft-zoo list` fast.
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
# What remains of an interrupted command.
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
    """Run the command line and return the exit status: 0, or 2 after an invalid input."""
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has closed the pipe, like head
        return 0
    except KeyboardInterrupt:
        print(f"neft-zoo: interrupted{AFTERWARDS.get(command, '')}", file=sys.stderr)
        return 130


def _command(arguments: Sequence[str]) -> str:
    """Return the name of the command, or an empty string if only help or the version is requested.

    Raises:
        NoiseError: if the command does not exist.
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
