"""`neft-zoo list`, `show` and `cite`: the available strategies."""

from __future__ import annotations

import argparse
import fnmatch
import textwrap

from neft_zoo import registry
from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.console import show_table, terminal_width
from neft_zoo.errors import NoiseError
from neft_zoo.registry.citations import bibtex
from neft_zoo.registry.docstrings import argument_texts, prose, readable, spell
from neft_zoo.registry.entries import Entry

WIDTH = 80
WIDE = 120  # terminal columns from which `list` also shows family and site


def add_to(commands: Commands) -> None:
    """Add the commands to the command line."""
    command = add_command(commands, "list", list_strategies, "list the strategies", "neft-zoo list 'neft_*'")
    command.add_argument("pattern", nargs="?", default="*", help="shell pattern, such as 'neft_*'")
    summary = "explain a strategy: formula, arguments, cost, paper, YAML"
    command = add_command(commands, "show", show, summary, "neft-zoo show symnoise")
    command.add_argument("name", help="of the strategy")
    summary = "print the BibTeX entry of a strategy's paper"
    command = add_command(commands, "cite", cite, summary, "neft-zoo cite symnoise >> paper.bib")
    command.add_argument("name", help="of the strategy")


def list_strategies(options: argparse.Namespace) -> None:
    """Print a row per strategy; a narrow terminal omits family and site, which `show` prints too."""
    chosen = fnmatch.filter(registry.names(), options.pattern)
    if not chosen:
        raise NoiseError(f"pattern must match a strategy, got {options.pattern!r}; neft-zoo list shows all of them.")
    columns = ("name", "family", "passes", "site", "paper", "what")
    wide = columns if terminal_width() >= WIDE else ("name", "passes", "paper", "what")
    rows: list[tuple[str, ...]] = [wide]
    for name in chosen:
        entry, strategy = registry.entry(name), registry.make(name)
        paper = (entry.paper or "-").removeprefix("https://arxiv.org/abs/")
        cells = (name, strategy.family, str(strategy.objective.passes), strategy.site, paper, entry.summary)
        rows.append(tuple(cell for column, cell in zip(columns, cells, strict=True) if column in wide))
    show_table(rows, numbers=[wide.index("passes")])


def show(options: argparse.Namespace) -> None:
    """Print a strategy's page."""
    import yaml  # late, since `neft-zoo list` does not need it

    entry, strategy = registry.entry(options.name), registry.make(options.name)
    print(f"{entry.name} (version {entry.version})\n")
    print(textwrap.fill(entry.summary, WIDTH), end="\n\n")
    print(readable(prose(entry)), end="\n\n")
    if entry.parameters:
        print("Arguments", *_arguments(entry), "", sep="\n")
    passes = strategy.objective.passes
    print(f"Cost      {passes} forward and {passes} backward {'pass' if passes == 1 else 'passes'} per batch")
    print(f"Family    {strategy.family}")
    print(f"Site      {strategy.site}")
    print(f"Paper     {entry.paper or 'none'}\n")
    print("In a recipe\n")
    print(textwrap.indent(yaml.safe_dump({"noise": strategy.to_dict()}, sort_keys=False), "    "), end="")


def _arguments(entry: Entry) -> list[str]:
    """Return the lines about each argument: name, type, default and description."""
    hints, texts, lines = entry.hints(), argument_texts(entry), []
    for name, parameter in entry.parameters.items():
        default = "required" if parameter.default is parameter.empty else f"default {parameter.default!r}"
        lines.append(f"  {name}: {spell(hints[name])}, {default}")
        lines += textwrap.wrap(texts.get(name, ""), WIDTH, initial_indent="      ", subsequent_indent="      ")
    return lines


def cite(options: argparse.Namespace) -> None:
    """Print the BibTeX entry of a strategy's paper."""
    print(bibtex(registry.entry(options.name).paper))
