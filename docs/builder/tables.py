"""Small parts of tables: numbers, differences with their intervals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2.environment import TemplateModule
from markupsafe import Markup, escape

from neft_zoo.compare.experiment import Cell
from neft_zoo.compare.formats import interval_text, number
from neft_zoo.compare.html import environment
from neft_zoo.compare.metrics import Metric, metric
from neft_zoo.compare.verdicts import Verdict

TEMPLATES = environment(Path(__file__).parent / "templates")


def macros(template: str) -> TemplateModule:
    """Return the macros of a template of the site."""
    return TEMPLATES.get_template(template).module


def typeset(value: float | None, digits: int, sign: bool = False) -> str:
    """Return a number in the format of pages."""
    return number(value, digits, sign, typeset=True)


def difference_text(cell: Cell, kind: Metric) -> str:
    """Return a paired difference and its interval."""
    return interval_text(cell.difference, kind.digits)


def judged_text(cell: Cell | None) -> str:
    """Return a difference in test loss with its interval and verdict."""
    if cell is None:
        return "-"
    digits, verdict = metric("test_loss").digits, cell.verdict
    said = f", {verdict.text(digits)}" if verdict is not None and verdict.word != "one seed" else ""
    return f"{interval_text(cell.difference, digits)}{said}"


def could_have_been_seen(verdicts: Iterable[Verdict | None], word: str) -> str:
    """Return in brackets the effects that undecided verdicts would have shown, or "" for other verdicts."""
    visible = [each.visible for each in verdicts if each is not None and each.visible is not None]
    if word != "undecided" or not visible:
        return ""
    ends = dict.fromkeys(f"\N{PLUS-MINUS SIGN}{end:.3f}" for end in (min(visible), max(visible)))
    return f" ({' to '.join(ends)} would have been seen)"


def unbroken(text: str) -> Markup:
    """Return a cell's text whose intervals are not broken over lines."""
    whole = Markup('<span class="whole">{}</span>')
    parts = enumerate(re.split(r"(\[.*?\],?)", text))
    return Markup("").join(whole.format(part) if odd % 2 else escape(part) for odd, part in parts)


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
