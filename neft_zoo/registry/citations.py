"""BibTeX entries of the papers behind the strategies, read from papers.bib by URL."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

BIBLIOGRAPHY = Path(__file__).with_name("papers.bib")
PACKAGE = "neft_zoo"  # the key of this package's own entry


@cache
def bibliography() -> dict[str, str]:
    """Return the entries of papers.bib by the paper's URL, and this package's own entry by its key."""
    entries = BIBLIOGRAPHY.read_text(encoding="utf-8").strip().split("\n\n")
    return {_field("url", entry) or PACKAGE: entry for entry in entries}


def bibtex(paper: str | None) -> str:
    """Return the BibTeX entry for a paper's URL, or that of this package for None.

    A URL that is not in papers.bib, as for a third-party entry, gets a minimal `@misc` entry.
    """
    if paper is not None and paper not in bibliography():
        return f"@misc{{{re.sub(r'[^a-z0-9]+', '_', paper.lower()).strip('_')},\n  howpublished = {{{paper}}},\n}}"
    return bibliography()[paper or PACKAGE]


def _field(name: str, entry: str) -> str | None:
    value = re.search(rf"^  {name} = \{{(.*)\}},$", entry, flags=re.MULTILINE)
    return value and value[1]
