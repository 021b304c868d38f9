"""The command line; all commands but the small ones have their options elsewhere."""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import sys
import textwrap
from pathlib import Path

import neft_zoo
from neft_zoo import registry
from neft_zoo.cli import alpha as alpha_command
from neft_zoo.cli import compare as comparing
from neft_zoo.cli import evaluate as evaluation
from neft_zoo.cli import judge as judging
from neft_zoo.errors import NoiseError
from neft_zoo.registry.citations import bibtex
from neft_zoo.registry.docstrings import argument_texts, prose, readable, spell
from neft_zoo.registry.entries import Entry

WIDTH = 100


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, or 2 for something that is not accepted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["sft"]:
            return sft(arguments[1:])  # TRL's parser reads these, hence not ours
        if arguments[:1] == ["doctor"]:
            return doctor(arguments[1:])
        options = _parser().parse_args(arguments)
        options.run(options)
        sys.stdout.flush()
        return 0
    except NoiseError as error:
        print(f"neft-zoo: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `| head` has read enough
        return 0
    except KeyboardInterrupt:
        print("neft-zoo: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="neft-zoo", description=neft_zoo.__doc__)
    parser.add_argument("--version", action="version", version=f"neft-zoo {neft_zoo.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="list the strategies")
    command.add_argument("pattern", nargs="?", default="*", help="shell pattern, such as 'neft_*'")
    command.set_defaults(run=list_strategies)

    command = commands.add_parser("show", help="explain a strategy: formula, arguments, cost, paper, YAML")
    command.add_argument("name")
    command.set_defaults(run=show)

    commands.add_parser("sft", help="fine-tune with TRL: a recipe, any TRL option, and --noise", add_help=False)
    commands.add_parser("doctor", help="measure what noise does on a recipe's batches; trains nothing", add_help=False)

    command = commands.add_parser("evaluate", help="measure a model with the noise off: losses, answers, robustness")
    evaluation.add_arguments(command)
    command = commands.add_parser("alpha", help="sweep the strength of noise on a recipe and recommend a range")
    alpha_command.add_arguments(command)

    command = commands.add_parser("recipes", help="list or copy the shipped recipes")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    action = actions.add_parser("ls", help="list the recipes")
    action.set_defaults(run=list_recipes)
    action = actions.add_parser("cp", help="copy a recipe to edit it")
    action.add_argument("name")
    action.add_argument("destination", type=Path, help="file or folder")
    action.set_defaults(run=copy_recipe)

    comparing.add_to(commands)
    judging.add_to(commands)

    command = commands.add_parser("cite", help="print the BibTeX entry of a strategy's paper")
    command.add_argument("name")
    command.set_defaults(run=lambda options: print(bibtex(registry.entry(options.name).paper)))
    return parser


def list_strategies(options: argparse.Namespace) -> None:
    """Print a row per strategy: name, family, passes per batch, site, what it is, paper."""
    found = fnmatch.filter(registry.names(), options.pattern)
    if not found:
        raise NoiseError(f"pattern must match a strategy, got {options.pattern!r}; neft-zoo list shows all of them.")
    rows = [("name", "family", "passes", "site", "paper", "what")]
    for name in found:
        entry, strategy = registry.entry(name), registry.make(name)
        paper = (entry.paper or "-").removeprefix("https://arxiv.org/abs/")
        row = (name, strategy.family, str(strategy.objective.passes), strategy.site, paper, entry.summary)
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[5]]))


def show(options: argparse.Namespace) -> None:
    """Print a strategy's page."""
    import yaml  # late, as everything that `neft-zoo list` does without

    entry, strategy = registry.entry(options.name), registry.make(options.name)
    print(f"{entry.name} (version {entry.version})\n")
    print(textwrap.fill(entry.summary, WIDTH), end="\n\n")
    print(readable(prose(entry)), end="\n\n")
    if entry.parameters:
        print("Arguments")
        for line in _arguments(entry):
            print(line)
        print()
    passes = strategy.objective.passes
    print(f"Cost      {passes} forward and {passes} backward {'pass' if passes == 1 else 'passes'} per batch")
    print(f"Family    {strategy.family}")
    print(f"Site      {strategy.site}")
    print(f"Paper     {entry.paper or 'none'}\n")
    print("In a recipe\n")
    print(textwrap.indent(yaml.safe_dump({"noise": strategy.to_dict()}, sort_keys=False), "    "), end="")


def _arguments(entry: Entry) -> list[str]:
    """Return a line per argument: name, type, default and what the docstring says of it."""
    hints, texts, lines = entry.hints(), argument_texts(entry), []
    for name, parameter in entry.parameters.items():
        default = "required" if parameter.default is parameter.empty else f"default {parameter.default!r}"
        lines.append(f"  {name}: {spell(hints[name])}, {default}")
        lines += textwrap.wrap(texts.get(name, ""), WIDTH, initial_indent="      ", subsequent_indent="      ")
    return lines


def list_recipes(options: argparse.Namespace) -> None:
    """Print every shipped recipe with its first comment line."""
    from neft_zoo.config import recipe

    found = recipe.names()
    width = max(map(len, found))
    for name in found:
        first = (recipe.folder() / f"{name}.yaml").read_text(encoding="utf-8").split("\n", 1)[0]
        print(f"{name.ljust(width)}  {first.lstrip('# ')}")


def copy_recipe(options: argparse.Namespace) -> None:
    """Copy a recipe; what it extends is found by name wherever the copy lies."""
    from neft_zoo.config import recipe

    source, destination = recipe.find(options.name), options.destination
    target = destination / source.name if destination.is_dir() else destination
    if target.exists():
        raise NoiseError(f"destination must not exist yet, got {target}.")
    if not target.parent.is_dir():
        raise NoiseError(f"destination must be in an existing folder, got {target}.")
    shutil.copyfile(source, target)
    print(target)


def sft(argv: list[str]) -> int:
    """Fine-tune; imported late, since it loads torch."""
    if any(argument in ("-h", "--help") for argument in argv):
        print(
            "usage: neft-zoo sft [--config RECIPE] [--noise NAME] [--noise.ARGUMENT VALUE] [any option of TRL's sft]\n"
            "                    [--accelerate_config NAME_OR_FILE] [--num_processes N] [any of accelerate launch]\n"
        )
    from neft_zoo.cli import launch
    from neft_zoo.cli.sft import run

    engine, rest = launch.split(argv)
    if engine:
        return launch.start(engine, rest)
    run(rest)
    return 0


def doctor(argv: list[str]) -> int:
    """Compare stock noise with ours on a recipe's batches; imported late as well."""
    if any(argument in ("-h", "--help") for argument in argv):
        print("usage: neft-zoo doctor RECIPE [--real_model] [--json PATH] [any option of neft-zoo sft]\n")
    from neft_zoo.cli.doctor import run

    run(argv)
    return 0
