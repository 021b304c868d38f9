"""The page of papers: method, claim, what held up here, and BibTeX, from papers.bib and the strategies' pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from neft_zoo import registry
from neft_zoo.compare.experiment import Experiment
from neft_zoo.registry.citations import PACKAGE, bibliography
from neft_zoo.registry.docstrings import prose

from .chooser_evidence import nearest, said
from .words import title

HEAD = """---
search:
  boost: 0.6
---

# Papers

Every paper behind a strategy: what it proposes, what it claims, what held up in the runs of this repository (small
models, paired by seed, with 95 % intervals), and its BibTeX. [How to cite](cite.md) says what to cite;
`neft-zoo cite NAME` prints the same entry.
"""
CITATION = Path(__file__).parents[2] / "CITATION.cff"


def page(experiments: Sequence[Experiment]) -> str:
    """Return the page in Markdown."""
    named: dict[str, list[str]] = {}
    for name in registry.builtin_names():
        if paper := registry.entry(name).paper:
            named.setdefault(paper, []).append(name)
    entries = {address: text for address, text in bibliography().items() if address in named}
    parts = [HEAD]
    for address, text in sorted(entries.items(), key=lambda each: -int(field("year", each[1]) or 0)):
        parts.append(one(address, text, named[address], experiments))
    return "\n\n".join(parts) + "\n"


def one(address: str, text: str, names: list[str], experiments: Sequence[Experiment]) -> str:
    """Return the section of a paper."""
    words = re.sub(r"[{}]", "", field("title", text))
    anchor = address.rpartition("/")[2].replace(".", "")
    where = field("booktitle", text) or field("journal", text) or "arXiv"
    authors = field("author", text).split(" and ")
    who = f"{authors[0].partition(',')[0]} et al." if len(authors) > 1 else authors[0].partition(",")[0]
    links = ", ".join(f"[{name}](strategies/{name}.md)" for name in names)
    parts = [
        f"## {words} {{ #{anchor} }}",
        f"{who}, {re.sub(r'[{}]', '', where)}, {field('year', text)}; [{address}]({address}).",
    ]
    parts.append(f"**Method.** {links}: {registry.entry(names[0]).summary}")
    if claim := claimed(names[0]):
        parts.append(f"**Claim.** {claim}")
    parts.append(f"**Here.** {held_up(names, experiments)}")
    return "\n\n".join([*parts, f"```text\n{text}\n```"])


def field(name: str, text: str) -> str:
    """Return a field of a BibTeX entry, "" without it."""
    found = re.search(rf"^  {name} = \{{(.*)\}},$", text, flags=re.MULTILINE)
    return found[1] if found else ""


def claimed(name: str) -> str:
    """Return what is said for a strategy on its page."""
    found = re.search(r"\bFor: (.+?)(?= Against: |$)", " ".join(prose(registry.entry(name)).split()))
    return found[1][:1].upper() + found[1][1:] if found else ""


def held_up(names: Sequence[str], experiments: Sequence[Experiment]) -> str:
    """Return what the strategies of a paper did to the test loss here."""
    lines = []
    for name in names:
        if found := nearest(name, "full", "no", "instructions", experiments):
            experiment, row = found
            lines.append(f"`{name}` on {title(experiment)}, test loss minus plain training: {said(row)}.")
    return " ".join(lines) or "Not run here."


def citation() -> str:
    """Return the repository's CITATION.cff and this package's own BibTeX."""
    text = CITATION.read_text(encoding="utf-8").strip()
    return f"```text\n{bibliography()[PACKAGE]}\n```\n\nThe same for tools, `CITATION.cff`:\n\n```yaml\n{text}\n```"
