"""The model, data and recipes that are shipped with the package."""

from __future__ import annotations

from pathlib import Path

from neft_zoo.errors import NoiseError, shown


def folder() -> Path:
    """Return the folder of the shipped recipes: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def shipped(name: str) -> str:
    """Return the path of a shipped model or data set.

    Args:
        name: `quickstart/model` or `quickstart/data`.

    Raises:
        NoiseError: if there is none with this name.

    Example:
        `data = load_dataset(shipped("quickstart/data"), split="train")`
    """
    path = folder() / name
    if not path.is_dir():
        raise NoiseError(f"name must be quickstart/model or quickstart/data, got {shown(name)}.")
    return str(path)
