"""Hashes of everything that determines a run's results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from neft_zoo.config import recipe
from neft_zoo.redaction import redact

LARGE = 64 * 2**20  # bytes; larger files are identified by size and modification time
LOCAL = ("model_name_or_path", "dataset_name", "chat_template_path")  # options that may name files or folders


def digest(value: object) -> str:
    """Return a short hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def fingerprint(config: Mapping[str, object]) -> str:
    """Return a hash of a recipe's options, with the contents of local models and data instead of their paths.

    Secrets are excluded: a token may be renewed, and its hash should not be in files that are shared.
    """
    named = {key: str(config[key]) for key in LOCAL if config.get(key)} | _of_mixture(config.get("datasets"))
    paths = {key: Path(name.replace(recipe.PLACEHOLDER, str(recipe.folder()))) for key, name in named.items()}
    local = {key: _contents(path.expanduser()) for key, path in paths.items() if path.expanduser().exists()}
    return digest(redact({**config, **local}, known=()))


def _of_mixture(datasets: object) -> dict[str, str]:
    """Return what may be a file or folder in each data set of a mixture."""
    named: dict[str, str] = {}
    for index, each in enumerate(datasets if isinstance(datasets, list) else []):
        for key in ("path", "data_dir", "data_files"):
            value = each.get(key) if isinstance(each, dict) else None
            values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            named |= {f"datasets.{index}.{key}.{turn}": str(item) for turn, item in enumerate(values) if item}
    return named


def _contents(path: Path) -> list[list[object]]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    contents: list[list[object]] = []
    for file in files:
        stat = file.stat()
        large = stat.st_size > LARGE
        contents.append([file.name, stat.st_mtime_ns if large else hashlib.sha256(file.read_bytes()).hexdigest()])
    return contents
