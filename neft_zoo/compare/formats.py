"""Formatting of numbers and names in tables, on pages and in figures."""

from __future__ import annotations

import re

from neft_zoo.compare.statistics import Difference
from neft_zoo.console import printable

FORMULA = "=+-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}"
MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int, sign: bool = False, typeset: bool = False) -> str:
    """Return a number with `digits` decimals, without a minus before zero, or a dash if it is missing.

    Args:
        value: the number.
        digits: decimals.
        sign: whether positive numbers get a plus sign.
        typeset: whether to use a true minus sign and thousands separators, for a page.
    """
    if value is None:
        return "-"
    value = round(value, digits) + 0.0  # -0.0 + 0.0 is 0.0
    if not typeset:
        return format(value, f"{'+' if sign else ''}.{digits}f")
    return format(value, f"{'+' if sign else ''},.{digits}f").replace("-", MINUS)


def p_value(p: float | None) -> str:
    """Return a p value with three decimals, or a dash if it is missing."""
    return "-" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def interval_text(difference: Difference | None, digits: int) -> str:
    """Return a mean difference with its intervals in brackets, for a page."""
    if difference is None or difference.mean is None:
        return "no common seed"
    mean = number(difference.mean, digits, sign=True, typeset=True)
    if difference.low is None or difference.high is None:
        text = f"{mean}, one seed" if len(difference.values) == 1 else f"{mean} at every seed"
    else:
        low, high = (number(end, digits, sign=True, typeset=True) for end in (difference.low, difference.high))
        text = f"{mean} [{low}, {high}]"
    if difference.over_records is None:
        return text
    low, high = (number(end, digits, sign=True, typeset=True) for end in difference.over_records)
    return f"{text}, over records too [{low}, {high}]"


def markdown_text(text: str) -> str:
    """Return a text escaped for Markdown: no end of a table cell, HTML tag, link or image."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", printable(text).replace("|", "/")).replace("](", "]\\(")


def csv_text(text: str) -> str:
    """Return a text on one line that spreadsheets do not read as a formula, even after leading spaces."""
    text = printable(text)
    return f"'{text}" if len(text.strip()) > 1 and text.strip()[0] in FORMULA else text
