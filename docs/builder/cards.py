"""Tables that fit: as cards on a phone, with column names in the cells, and with breakable long words."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor

WIDE = 3  # columns from which a table is laid out as cards on a phone and on paper
LONG = re.compile(r"\S{25,}")  # a word that can make its column too wide


class CardTables(Extension):
    """Markdown extension that labels the cells of wide tables, and makes long words in them breakable."""

    def extendMarkdown(self, md: Markdown) -> None:
        # After inline markup, which produces the text of the headers.
        md.treeprocessors.register(_Labels(md), "card_tables", 15)


class _Labels(Treeprocessor):
    def run(self, root: Element) -> None:
        for table in root.iter("table"):
            for cell in table.iter("td"):
                if LONG.search("".join(cell.itertext())):
                    cell.set("class", "long")
            heads = ["".join(head.itertext()).strip() for head in table.findall("./thead/tr/th")]
            if len(heads) < WIDE:
                continue
            table.set("data-cards", "")
            for row in table.findall("./tbody/tr"):
                for place, cell in enumerate(row.findall("td")):
                    if place and place < len(heads):
                        cell.set("data-label", heads[place])
