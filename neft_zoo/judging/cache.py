"""A cache of verdicts on disk, so that no question is asked, and paid for, twice."""

from __future__ import annotations

import json
from pathlib import Path

from neft_zoo.files import append_line, make_folder


class Cache:
    """Verdicts by question, one JSON line each; a line that a killed run left incomplete is ignored.

    Args:
        path: the file, created with the first verdict; None keeps verdicts in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.verdicts: dict[str, float] = {}
        if path is not None and path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            self.verdicts = dict(filter(None, map(_verdict, text.splitlines())))
            if not text.endswith("\n"):
                append_line(path, "")  # the next verdict must not continue an incomplete line

    def get(self, key: str) -> float | None:
        """Return the verdict for the question with this key, or None if there is none yet."""
        return self.verdicts.get(key)

    def add(self, key: str, verdict: float) -> None:
        """Store a verdict; it is on disk when this returns."""
        self.verdicts[key] = verdict
        if self.path is not None:
            make_folder(self.path.parent)
            append_line(self.path, json.dumps({"key": key, "verdict": verdict}))


def _verdict(line: str) -> tuple[str, float] | None:
    try:
        record = json.loads(line)
        return (record["key"], float(record["verdict"])) if record["verdict"] in (0, 0.5, 1) else None
    except (ValueError, KeyError, TypeError):
        return None
