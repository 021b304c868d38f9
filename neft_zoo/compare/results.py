"""Results on disk: one JSON per run, written whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import neft_zoo
from neft_zoo.errors import NoiseError

FORMAT = 1
NEEDED = ("format", "key", "recipe", "config", "noise", "control", "row", "seed", "status", "history", "versions")
Record = dict[str, Any]


def path_of(folder: Path, name: str, row: str, seed: int) -> Path:
    """Return the file of a run: readable, and distinct for every row."""
    return folder / f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)}-{row[:8]}-s{seed}.json"


def write(path: Path, record: Record) -> None:
    """Write a record whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path) -> Record:
    """Return a record.

    Raises:
        NoiseError: if the file is damaged or no result; the message names it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError):
        raise NoiseError(
            f"{path} must hold the result of a run, but it is damaged; remove it and compare again."
        ) from None
    if not isinstance(record, dict) or record.get("format") != FORMAT or any(key not in record for key in NEEDED):
        raise NoiseError(f"{path} must hold the result of a run in format {FORMAT}, got something else.")
    return record


def read_folder(folder: Path) -> list[Record]:
    """Return all results of a folder, which belong to one recipe.

    Raises:
        NoiseError: if there are none, one is damaged, or they belong to different recipes.
    """
    records = [read(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    if not records:
        inside = sorted({str(path.parent) for path in folder.glob("*/*.json")}) if folder.is_dir() else []
        hint = f"; did you mean {', '.join(inside)}?" if inside else "."
        raise NoiseError(f"the folder must hold results of neft-zoo compare, got {folder}{hint}")
    for record in records[1:]:
        check_recipe(folder, records[0], record["recipe"]["hash"], record["config"])
    return records


def check_recipe(folder: Path, known: Record, fingerprint: str, config: dict[str, Any]) -> None:
    """Raise if a result and a recipe do not belong together.

    Raises:
        NoiseError: naming the options that differ.
    """
    if known["recipe"]["hash"] == fingerprint:
        return
    theirs = known["config"]
    keys = [key for key in {**theirs, **config} if theirs.get(key) != config.get(key)]
    told = ", ".join(f"{key} {theirs.get(key)!r} and {config.get(key)!r}" for key in keys)
    raise NoiseError(
        f"{folder} must hold results of one recipe, got different ones ({told or 'model or data changed'}): "
        "choose another output folder."
    )


def versions() -> dict[str, str]:
    """Return the versions of what determines a run's numbers."""
    libraries = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
    return {"neft_zoo": neft_zoo.__version__, **{name: version(name) for name in libraries}}


def surroundings() -> dict[str, Any]:
    """Return command, platform and git commit (None outside a checkout), for the record only."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        commit: str | None = done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = None
    called = Path(sys.argv[0]).name
    command = shlex.join(["neft-zoo" if called == "__main__.py" else called, *sys.argv[1:]])
    about = {"platform": platform.platform(), "python": platform.python_version()}
    return {"command": command, "commit": commit, **about}
