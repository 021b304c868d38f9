"""BibTeX of the papers behind the zoo, read from papers.bib by a paper's address."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

BIBLIOGRAPHY = Path(__file__).with_name("papers.bib")
PACKAGE = "neft_zoo"  # the key of this package's own entry


@cache
def bibliography() -> dict[str, str]:
    """Return the entries of papers.bib by the paper's address, this package's own by its key."""
    entries = BIBLIOGRAPHY.read_text(encoding="utf-8").strip().split("\n\n")
    return {_field("url", entry) or PACKAGE: entry for entry in entries}


def bibtex(paper: str | None) -> str:
    """Return the BibTeX entry of a paper's address, of this package without one.

    An address that papers.bib does not have, as that of a third party's entry, is cited as it is.
    """
    if paper is not None and paper not in bibliography():
        return f"@misc{{{re.sub(r'[^a-z0-9]+', '_', paper.lower()).strip('_')},\n  howpublished = {{{paper}}},\n}}"
    return bibliography()[paper or PACKAGE]


def _field(name: str, entry: str) -> str | None:
    value = re.search(rf"^  {name} = \{{(.*)\}},$", entry, flags=re.MULTILINE)
    return value and value[1]
