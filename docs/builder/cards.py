"""Tables that become cards where there is no room: every cell knows its column's name, so that a style can show it."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor

WIDE = 3  # columns from which a table is laid out as cards on a phone and on paper


class CardTables(Extension):
    """Markdown extension that labels the cells of wide tables."""

    def extendMarkdown(self, md: Markdown) -> None:
        # After inline markup, which makes the text of the heads.
        md.treeprocessors.register(_Labels(md), "card_tables", 15)


class _Labels(Treeprocessor):
    def run(self, root: Element) -> None:
        for table in root.iter("table"):
            heads = ["".join(head.itertext()).strip() for head in table.findall("./thead/tr/th")]
            if len(heads) < WIDE:
                continue
            table.set("data-cards", "")
            for row in table.findall("./tbody/tr"):
                for place, cell in enumerate(row.findall("td")):
                    if place and place < len(heads):
                        cell.set("data-label", heads[place])
