"""`neft-zoo recipes`: list the shipped recipes, or copy one."""

from __future__ import annotations

import argparse
from pathlib import Path

from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.config import recipe
from neft_zoo.console import show_table
from neft_zoo.errors import NoiseError
from neft_zoo.files import check_output, write_text


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    example = "neft-zoo recipes ls\nneft-zoo recipes cp quickstart my.yaml"
    command = add_command(commands, "recipes", list_recipes, "list or copy the shipped recipes", example)
    actions = command.add_subparsers(required=True, metavar="ACTION")
    add_command(actions, "ls", list_recipes, "list the recipes", "neft-zoo recipes ls")
    summary = "copy a recipe to edit it"
    action = add_command(actions, "cp", copy_recipe, summary, "neft-zoo recipes cp quickstart my.yaml")
    action.add_argument("name", help="the recipe's name in recipes ls")
    action.add_argument("destination", type=Path, help="file or folder")


def list_recipes(options: argparse.Namespace) -> None:
    """Print every shipped recipe with its first comment line."""
    rows = [("recipe", "what")]
    for name in recipe.names():
        first = (recipe.folder() / f"{name}.yaml").read_text(encoding="utf-8").split("\n", 1)[0]
        rows.append((name, first.lstrip("# ")))
    show_table(rows)


def copy_recipe(options: argparse.Namespace) -> None:
    """Copy a recipe; recipes that it extends are still found by name."""
    source, destination = recipe.find(options.name), options.destination
    target = destination / source.name if destination.is_dir() else destination
    if target.exists():
        raise NoiseError(f"destination must not exist yet, got {target}.")
    check_output("destination", target)
    write_text(target, source.read_text(encoding="utf-8"))
    print(target)
