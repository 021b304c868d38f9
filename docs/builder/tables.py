"""Small parts of tables: numbers, differences with their intervals, links to a row's runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from neft_zoo.compare.statistics import Difference

from .metrics import Metric
from .outcomes import Cell, Row

MINUS = "−"


def number(value: float | None, digits: int, sign: bool = False) -> str:
    """Return a number, a dash for a missing one; with a true minus sign, and none before a zero."""
    if value is None:
        return "-"
    value = round(value, digits) + 0.0
    return format(value, f"{'+' if sign else ''},.{digits}f").replace("-", MINUS)


def difference_text(cell: Cell, kind: Metric) -> str:
    """Return a paired difference and its interval."""
    return interval_text(cell.difference, kind.digits)


def interval_text(found: Difference | None, digits: int) -> str:
    """Return a mean difference with its interval in brackets."""
    if found is None or found.mean is None:
        return "no common seed"
    told = number(found.mean, digits, sign=True)
    if found.low is None or found.high is None:
        return f"{told}, one seed"
    return f"{told} [{number(found.low, digits, True)}, {number(found.high, digits, True)}]"


def whole(text: str) -> str:
    """Return a cell's text that is not broken over lines."""
    return f'<span class="whole">{text}</span>'


def run_links(row: Row, up: str) -> str:
    """Return a link to the JSON of every run, by seed; `up` leads to the site's root."""
    told = []
    for path, record in row.runs:
        seed = f"s{record['seed']}" + ("" if record["status"] == "ok" else " failed")
        told.append(f'<a href="{up}{path.as_posix()}">{seed}</a>')
    return whole(" ".join(told))


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
