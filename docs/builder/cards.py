"""Tables that fit: cards on a phone, whose cells know their columns' names, and long words that can be broken."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor

WIDE = 3  # columns from which a table is laid out as cards on a phone and on paper
LONG = re.compile(r"\S{25,}")  # a word that can make its column too wide
BREAKS = re.compile(r"(?<=[/_.,=:\[])")  # where it may go on in the next line
STASHED = "\x02"  # Markdown's mark of HTML that it puts in later


class CardTables(Extension):
    """Markdown extension that labels the cells of wide tables, and lets long words in them be broken."""

    def extendMarkdown(self, md: Markdown) -> None:
        # After inline markup, which makes the text of the heads.
        md.treeprocessors.register(_Labels(md), "card_tables", 15)


class _Labels(Treeprocessor):
    def run(self, root: Element) -> None:
        for table in root.iter("table"):
            for cell in [*table.iter("td")]:
                _let_break(cell)
            heads = ["".join(head.itertext()).strip() for head in table.findall("./thead/tr/th")]
            if len(heads) < WIDE:
                continue
            table.set("data-cards", "")
            for row in table.findall("./tbody/tr"):
                for place, cell in enumerate(row.findall("td")):
                    if place and place < len(heads):
                        cell.set("data-label", heads[place])


def _let_break(cell: Element) -> None:
    """Put a break opportunity into the long words of a cell, code and text alike."""
    for parent in [*cell.iter()]:
        for child in [*parent]:
            child.tail, *rest = _pieces(child.tail)
            _insert(parent, [*parent].index(child) + 1, rest)
        parent.text, *rest = _pieces(parent.text)
        _insert(parent, 0, rest)


def _pieces(text: str | None) -> list[str]:
    if not text or STASHED in text:
        return [text or ""]
    places = [word.start() + each.start() for word in LONG.finditer(text) for each in BREAKS.finditer(word[0])]
    return [text[start:end] for start, end in zip([0, *places], [*places, None], strict=True)]


def _insert(parent: Element, place: int, pieces: list[str]) -> None:
    for piece in reversed(pieces):
        each = Element("wbr")
        each.tail = piece
        parent.insert(place, each)
