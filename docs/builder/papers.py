"""The page of papers: method, claim, results here, and BibTeX, from papers.bib and the strategies' pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from neft_zoo import registry
from neft_zoo.compare.experiment import STEPS, Experiment
from neft_zoo.registry.citations import PACKAGE, bibliography
from neft_zoo.registry.docstrings import prose

from .chooser_evidence import nearest, said
from .wants import IDEAS
from .words import settings, title

HEAD = """---
search:
  boost: 0.6
---

# Papers

Every paper behind a strategy: what it proposes, what it claims, what held up in the runs of this repository (test loss
minus plain training, paired by seed, with 95 % intervals; [what was run](#runs)), and its BibTeX.
[How to cite](cite.md) says what to cite; `neft-zoo cite NAME` prints the same entry.
"""
# What a strategy's page reports of the paper's results, if it has no sentence with "For:".
CLAIM = re.compile(r"\bThe paper\b.*\breports\b|\b[Mm]ade (to|for|against)\b|\bIt gained\b")
NO_CLAIM = "None for fine-tuning language models."
CITATION = Path(__file__).parents[2] / "CITATION.cff"


def page(experiments: Sequence[Experiment]) -> str:
    """Return the page in Markdown."""
    named: dict[str, list[str]] = {}
    order = {name: place for place, name in enumerate(IDEAS)}  # a paper's main strategy first
    for name in sorted(registry.builtin_names(), key=lambda name: (order.get(name, len(order)), name)):
        if paper := registry.entry(name).paper:
            named.setdefault(paper, []).append(name)
    entries = {address: text for address, text in bibliography().items() if address in named}
    parts = [HEAD]
    for address, text in sorted(entries.items(), key=lambda each: -int(field("year", each[1]) or 0)):
        parts.append(one(address, text, named[address], experiments))
    shown = [each for each in experiments if each.budget == STEPS]
    parts += ["## What was run { #runs }", settings(shown)] if shown else []
    return "\n\n".join(parts) + "\n"


def one(address: str, text: str, names: list[str], experiments: Sequence[Experiment]) -> str:
    """Return the section of a paper."""
    words = re.sub(r"[{}]", "", field("title", text))
    anchor = address.rpartition("/")[2].replace(".", "")
    where = field("booktitle", text) or field("journal", text) or "arXiv"
    authors = field("author", text).split(" and ")
    who = f"{authors[0].partition(',')[0]} et al." if len(authors) > 1 else authors[0].partition(",")[0]
    first, *others = [f"[{name}](strategies/{name}.md)" for name in names]
    also = f" Also {', '.join(others)}." if others else ""
    parts = [
        f"## {words} {{ #{anchor} }}",
        f"{who}, {re.sub(r'[{}]', '', where)}, {field('year', text)}; [{address}]({address}).",
        f"**Method.** {first}: {registry.entry(names[0]).summary}{also}",
        f"**Claim.** {claimed(names[0])}",
        f"**Here.** {held_up(names, experiments)}",
    ]
    return "\n\n".join([*parts, f"```text\n{text}\n```"])


def field(name: str, text: str) -> str:
    """Return a field of a BibTeX entry, "" without it."""
    found = re.search(rf"^  {name} = \{{(.*)\}},$", text, flags=re.MULTILINE)
    return found[1] if found else ""


def claimed(name: str) -> str:
    """Return what a strategy's page says in favour of it, or reports of its paper's results."""
    text = " ".join(prose(registry.entry(name)).split())
    if found := re.search(r"\bFor: (.+?)(?= Against: |$)", text):
        return found[1][:1].upper() + found[1][1:]
    sentences = re.split(r"(?<=\.) (?=[A-Z])", re.sub(r"\$\$.*?\$\$", "", text))
    return next((each.strip() for each in sentences if CLAIM.search(each)), NO_CLAIM)


def held_up(names: Sequence[str], experiments: Sequence[Experiment]) -> str:
    """Return the effect of a paper's strategies on the test loss here."""
    found = {name: nearest(name, "full", "no", "instructions", experiments) for name in names}
    lines = [f"`{name}` on {title(each[0])}: {said(each[1])}." for name, each in found.items() if each]
    if len(lines) < 2:
        return "".join(lines) or "Not run here."
    return "\n\n" + "\n".join(f"* {line}" for line in lines)


def citation() -> str:
    """Return the repository's CITATION.cff and this package's own BibTeX."""
    text = CITATION.read_text(encoding="utf-8").strip()
    return f"```text\n{bibliography()[PACKAGE]}\n```\n\nThe same for tools, `CITATION.cff`:\n\n```yaml\n{text}\n```"
