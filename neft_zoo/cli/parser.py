"""Shared by all commands: one spelling of flags, help with an example, and one-sentence errors."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

from neft_zoo.config.declared import config_options
from neft_zoo.config.names import check_flags
from neft_zoo.errors import NoiseError, one_line

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `NoiseError` where argparse prints its usage and exits.

    Args:
        passes_on: whether unknown arguments belong to TRL: they are stored in `flags` instead of refused.
        **kwargs: arguments of `argparse.ArgumentParser`.
    """

    def __init__(self, *, passes_on: bool = False, **kwargs: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter  # keeps the line breaks of the example
        super().__init__(allow_abbrev=False, formatter_class=formatter, **kwargs)
        self.passes_on, self.has_commands = passes_on, False

    def add_subparsers(self, **kwargs: Any) -> Commands:  # type: ignore[override]
        self.has_commands = True
        return super().add_subparsers(**kwargs)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str], namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if not self.passes_on and not self.has_commands:
            # Checked before argparse, which would first ask for missing arguments. The usage lists all of its flags.
            usage = self.format_usage()
            in_recipe = config_options() if "RECIPE" in usage else ()
            check_flags(args, ["help", *re.findall(r"--(\w+)", usage)], in_recipe)
        options, rest = super().parse_known_args(args, namespace or argparse.Namespace())
        if self.passes_on:
            options.flags, rest = rest, []
        return options, rest

    def error(self, message: str) -> NoReturn:
        raise NoiseError(f"{one_line(message)}; {self.prog} --help explains.")


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
    example: str,
    passes_on: bool = False,
) -> Parser:
    """Add a command and return its parser.

    Args:
        commands: of the command line.
        name: of the command.
        run: runs the command and returns the exit status, with None for 0.
        summary: description in one line.
        example: example command lines.
        passes_on: as for `Parser`; the command then prints its own help.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[:1].upper()}{summary[1:]}.",
        epilog=as_epilog(example),
        passes_on=passes_on,
        add_help=not passes_on,
    )
    parser.set_defaults(run=run)
    if passes_on:
        parser.add_argument("-h", "--help", action="store_true")
    return parser


def as_epilog(example: str) -> str:
    """Return command lines formatted as the end of a help page."""
    lines = [f"  {line.strip()}" for line in example.strip().splitlines()]
    return "\n".join(["example:" if len(lines) == 1 else "examples:", *lines])


def with_underscores(argv: Sequence[str]) -> list[str]:
    """Return a command line with `--opt-name` replaced by `--opt_name`, up to a bare `--`."""
    end = list(argv).index("--") if "--" in argv else len(argv)
    return [_with_underscores(argument) for argument in argv[:end]] + list(argv[end:])


def _with_underscores(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
