"""Small parts of tables: differences with their intervals, links to a row's runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2.environment import TemplateModule
from markupsafe import Markup

from neft_zoo.compare.experiment import Cell, Row
from neft_zoo.compare.formats import interval_text, number
from neft_zoo.compare.html import environment
from neft_zoo.compare.metrics import Metric
from neft_zoo.compare.verdicts import Verdict

TEMPLATES = environment(Path(__file__).parent / "templates")


def macros(template: str) -> TemplateModule:
    """Return the macros of a template of the site."""
    return TEMPLATES.get_template(template).module


def typeset(value: float | None, digits: int, sign: bool = False) -> str:
    """Return a number as pages have it."""
    return number(value, digits, sign, typeset=True)


def difference_text(cell: Cell, kind: Metric) -> str:
    """Return a paired difference and its interval."""
    return interval_text(cell.difference, kind.digits)


def judged_text(cell: Cell, kind: Metric) -> Markup:
    """Return a paired difference, its interval, and the verdict on it."""
    text = unbroken(difference_text(cell, kind))
    if cell.verdict is None:
        return text
    return text + Markup("<br><small>{}</small>").format(cell.verdict.text(kind.digits))


def could_have_been_seen(verdicts: Iterable[Verdict | None], word: str) -> str:
    """Return in brackets the largest effect that undecided verdicts would have shown, "" for another word."""
    visible = [each.visible for each in verdicts if each is not None and each.visible is not None]
    if word != "undecided" or not visible:
        return ""
    return f" (\N{PLUS-MINUS SIGN}{max(visible):.3f} would have been seen)"


def unbroken(text: str) -> Markup:
    """Return a cell's text that is not broken over lines."""
    return Markup('<span class="whole">{}</span>').format(text)


def run_links(row: Row, up: str) -> Markup:
    """Return a link to the JSON of every run, by seed; `up` leads to the site's root."""
    link = Markup('<a href="{}">s{}{}</a>')
    links = [link.format(up + path.as_posix(), each.seed, "" if each.ok else " failed") for path, each in row.runs]
    return unbroken(Markup(" ").join(links))


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
