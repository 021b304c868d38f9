"""Shared by `sft` and `doctor`: a recipe, and TRL options on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from neft_zoo.cli.parser import Parser, as_epilog
from neft_zoo.config import recipe
from neft_zoo.config.declared import Declared, config_options
from neft_zoo.config.names import check_flags
from neft_zoo.config.noise_flags import take_config, take_noise
from neft_zoo.errors import NoiseError
from neft_zoo.registry.entries import make

# Placeholder for a value in the help, by the first type of the option.
METAVARS = {"int": "INT", "float": "FLOAT", "bool": "[BOOL]", "list": "TEXT ...", "dict": "JSON"}
NEEDED = ("--model_name_or_path", "--dataset_name", "--datasets")


def read_command_line(
    argv: Sequence[str], command: str, also: Sequence[str] = ()
) -> tuple[dict[str, object], dict[str, str]]:
    """Return the options of a command line merged over those of its recipe, and the location of the recipe's options.

    Names, recipe and noise are checked before TRL is imported.

    Args:
        argv: a recipe, first or as `--config`, then TRL options and `--noise`.
        command: for messages.
        also: flags of the command that are already removed, for suggestions.

    Raises:
        NoiseError: if the recipe, an option or its value is invalid.
    """
    argv = ["--config", *argv] if argv and not argv[0].startswith("-") else list(argv)
    rest, name = take_config(argv)
    if name is None and not any(argument.startswith(NEEDED) for argument in rest):
        raise NoiseError(f"{command} needs a recipe: neft-zoo {command} RECIPE, such as quickstart.")
    loaded = recipe.load(name) if name is not None else recipe.Recipe({}, {})
    options = config_options()
    with_noise = len(rest)
    rest, noise = take_noise(rest, loaded.values.get("noise"))
    chosen = {"noise": noise} if len(rest) < with_noise else {}
    negated = [f"no_{option.name}" for option in options.values() if option.switched_on]
    check_flags(rest, [*options, *negated, *also] if options else ())
    if noise is not None:
        make(noise)
    from neft_zoo.config.options import parse_flags

    return recipe.over(loaded.values, {**chosen, **parse_flags(rest)}), loaded.origin


def help_page(command: str, summary: str, example: str, add_own: Callable[[Parser], None]) -> str:
    """Return the help of a command that takes TRL options, grouped as in their source.

    Args:
        command: its name.
        summary: description in one line.
        example: example command lines.
        add_own: adds the command's own options to a parser.
    """
    usage = f"neft-zoo {command} RECIPE [--noise NAME] [--noise.ARGUMENT VALUE] [options]"
    parser = Parser(usage=usage, description=f"{summary[:1].upper()}{summary[1:]}.", epilog=as_epilog(example))
    parser.add_argument("RECIPE", help="a recipe's name or path, first or as --config RECIPE")
    groups = {"Noise": parser.add_argument_group("Noise")}
    groups["Noise"].add_argument(
        "--noise.ARGUMENT", metavar="VALUE", help="an argument of the strategy, such as alpha"
    )
    add_own(parser)
    for option in config_options().values():
        group = groups.get(option.group) or groups.setdefault(option.group, parser.add_argument_group(option.group))
        _add(group, option)
    return parser.format_help().rstrip()


def _add(group: argparse._ArgumentGroup, option: Declared) -> None:
    default = f" ({option.default})" if option.default not in ("", "''") else ""
    kind = option.kind.removeprefix("None | ").partition(" | ")[0].partition("[")[0]
    text = f"{option.help.rstrip('.')}{default}".replace("%", "%%")
    group.add_argument(f"--{option.name}", metavar=METAVARS.get(kind, "TEXT"), help=text)
