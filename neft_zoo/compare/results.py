"""Results on disk: one JSON file per run, written atomically."""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn, TypedDict

from neft_zoo.compare.record_checks import wrong_field
from neft_zoo.compare.records import FORMAT, RunRecord
from neft_zoo.errors import NoiseError, shown
from neft_zoo.files import replacing
from neft_zoo.redaction import redact

# The oldest version whose runs give the same results. It replaces the package's version in a result's identity, so
# that
# a release that changes no result does not invalidate them. A change in one entry increases that entry's version.
NUMBERS_SINCE = "0.1.0"


def path_of(folder: Path, name: str, row: str, seed: int) -> Path:
    """Return the file of a run, with a readable name that is unique for every row."""
    return folder / f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)}-{row[:8]}-s{seed}.json"


def write(path: Path, record: RunRecord) -> None:
    """Write a record atomically.

    Raises:
        NoiseError: if the file cannot be written.
    """
    # ASCII with an indent of one space, so that committed results stay byte-identical when written again.
    values = redact(record.to_dict())
    with replacing(path) as partial:
        partial.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read(path: Path) -> RunRecord:
    """Read a record.

    Raises:
        NoiseError: if the file is damaged or not a result; the message names it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        values = redact(values)  # versions before 0.2 stored secrets too
    except (ValueError, UnicodeDecodeError):
        raise NoiseError(
            f"{path} must hold the result of a run, but it is damaged; remove it and compare again."
        ) from None
    got = "something else"
    try:
        if values["format"] == FORMAT:
            record = RunRecord.from_dict(values)
            if (wrong := wrong_field(record)) is None:
                return record
            got = f"{wrong} {shown(values.get(wrong))}"
    except (KeyError, TypeError, AttributeError, IndexError):
        pass
    raise NoiseError(f"{path} must hold the result of a run in format {FORMAT}, got {got}.")


def _refuse(constant: str) -> NoReturn:
    """Refuse NaN and Infinity, which are no JSON: a value that is not finite is written as null."""
    raise ValueError(constant)


def read_folder(folder: Path) -> dict[Path, RunRecord]:
    """Read all results in a folder, which must belong to one recipe, by file.

    Raises:
        NoiseError: if there are none, one is damaged, or they belong to different recipes.
    """
    records = {path: read(path) for path in sorted(folder.glob("*.json"))} if folder.is_dir() else {}
    if not records:
        inside = sorted({str(path.parent) for path in folder.glob("*/*.json")}) if folder.is_dir() else []
        hint = f"; did you mean {', '.join(inside)}?" if inside else "."
        raise NoiseError(f"the folder must hold results of neft-zoo compare, got {folder}{hint}")
    first, *others = records.values()
    for record in others:
        check_recipe(folder, first, record.recipe.hash, record.config)
    check_unique(records)
    return records


def check_unique(runs: Mapping[Path, RunRecord]) -> None:
    """Raise if a folder holds two results of a row and seed.

    Raises:
        NoiseError: with their names.
    """
    known: dict[tuple[str, int], Path] = {}
    for path, run in runs.items():
        if (other := known.setdefault((run.row, run.seed), path)) is not path:
            raise NoiseError(
                f"{path.parent} must hold one result of a row and seed, got {other.name} and {path.name}."
            )


def check_recipe(folder: Path, known: RunRecord, fingerprint: str, config: Mapping[str, object]) -> None:
    """Raise if a result belongs to another recipe.

    Raises:
        NoiseError: with the options that differ.
    """
    if known.recipe.hash == fingerprint:
        return
    theirs, config = known.config, redact(config)
    keys = [key for key in {**theirs, **config} if theirs.get(key) != config.get(key)]
    differing = ", ".join(f"{key} {theirs.get(key)!r} and {config.get(key)!r}" for key in keys)
    raise NoiseError(
        f"{folder} must hold results of one recipe, got different ones ({differing or 'model or data changed'}): "
        "choose another output folder."
    )


def versions() -> dict[str, str]:
    """Return the versions of the libraries that determine a run's results."""
    libraries = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
    return {"neft_zoo": NUMBERS_SINCE, **{name: version(name) for name in libraries}}


class Surroundings(TypedDict):
    """The circumstances of a run, for the record only."""

    command: str
    commit: str | None
    platform: str
    python: str


def surroundings() -> Surroundings:
    """Return command, platform and git commit (None outside of a checkout)."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        commit: str | None = done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = None
    called = Path(sys.argv[0]).name
    command = shlex.join(["neft-zoo" if called == "__main__.py" else called, *sys.argv[1:]])
    return {
        "command": command,
        "commit": commit,
        "platform": platform.platform(),
        "python": platform.python_version(),
    }
