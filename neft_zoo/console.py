"""Terminal output of the commands: tables and messages, without other libraries' output."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import accumulate, groupby, zip_longest
from pathlib import Path
from typing import Any

from neft_zoo.errors import DataWarning, NoiseWarning

NARROWEST = 20  # minimum width of a column in characters
UNLIMITED = 10_000


@contextmanager
def quiet() -> Iterator[None]:
    """Show only warnings about data inside this context, and switch off other libraries' progress bars and remarks."""
    import datasets
    import huggingface_hub
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", DataWarning)
        yield


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show our own warnings as one line, without the position in the package's code."""
    usual = warnings.formatwarning

    def plain(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> str:
        if not issubclass(category, NoiseWarning):
            return usual(message, category, *where, **more)
        return f"neft-zoo: warning: {printable(str(message))}\n"

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


def say(text: str) -> None:
    """Print a status line on standard error, from the first process only."""
    if os.environ.get("RANK", "0") == "0":
        print(f"neft-zoo: {printable(text)}", file=sys.stderr, flush=True)


def say_written_over(*paths: Path) -> None:
    """Report which files of an earlier run will be overwritten; called before anything is computed."""
    earlier = [path for path in paths if path.exists()]
    if earlier:
        names = ", ".join([str(earlier[0]), *(path.name for path in earlier[1:])])
        say(f"{names} {'exists and is' if len(earlier) == 1 else 'exist and are'} written over")


class Seldom:
    """Prints at most one line per time interval.

    Args:
        seconds: length of the interval; the first line is printed at the earliest one interval after creation.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self.last >= self.seconds:
            self.last = time.monotonic()
            say(text)


def show_table(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> None:
    """Print a table: with rich on a terminal, if it is installed, and as aligned text otherwise.

    Args:
        rows: the header, then the lines; every row has a cell for each column.
        numbers: indices of right-aligned columns.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty() or find_spec("rich") is None:
        print(plain_table(rows, numbers))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for index, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if index in numbers else "left")
    for row in rows[1:]:
        table.add_row(*row)
    Console(markup=False).print(table)


def printable(text: str) -> str:
    """Return a text on one line without control characters, which a terminal would interpret."""
    return "".join(char if char.isprintable() else " " for char in text)


def terminal_width() -> int:
    """Return the width of the terminal, or of `COLUMNS`; in a pipe there is no limit."""
    return shutil.get_terminal_size((UNLIMITED, 24)).columns


def plain_table(rows: Sequence[Sequence[str]], numbers: Sequence[int] = (), width: int | None = None) -> str:
    """Return a table as aligned text, with cells wrapped to the width of the terminal, or to `width`.

    A table with many columns is split into several, each of which begins with the first column.
    """
    width = width or terminal_width()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths = _fitted(widths, width - 2 * (len(widths) - 1))
    ends = accumulate((size + 2 for size in widths[1:]), initial=widths[0])
    kept = max(2, sum(end <= width for end in ends))
    if kept < len(widths):
        first = plain_table([row[:kept] for row in rows], numbers, width)
        others = [[row[0], *row[kept:]] for row in rows]
        return f"{first}\n\n{plain_table(others, [at - kept + 1 for at in numbers if at >= kept], width)}"
    lines = []
    for row in rows:
        cells = [_wrapped(cell, size) for cell, size in zip(row, widths, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            sized = enumerate(zip(parts, widths, strict=True))
            aligned = [part.rjust(size) if at in numbers else part.ljust(size) for at, (part, size) in sized]
            lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def _fitted(widths: list[int], room: int) -> list[int]:
    """Return column widths that fit; names and texts, in the first and last column, are wrapped before the others."""
    for wrapped in ({0, len(widths) - 1}, {*range(len(widths))}):
        cap = max(widths)
        while sum(widths) > room and cap > NARROWEST:
            cap -= 1
            widths = [min(size, cap) if at in wrapped else size for at, size in enumerate(widths)]
    return widths


def _wrapped(cell: str, size: int) -> list[str]:
    return [cell] if len(cell) <= size else textwrap.wrap(cell, size)


def fitted_markdown(text: str) -> str:
    """Return Markdown whose tables fit the terminal, or unchanged Markdown in a pipe."""
    width, lines = terminal_width(), []
    for is_table, block in groupby(text.splitlines(), lambda line: line.startswith("|")):
        block = list(block)
        if is_table and max(map(len, block)) > width:
            rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block]
            lines.append(plain_table([row for row in rows if set("".join(row)) - set("-: ")], width=width))
        else:
            lines += [line if is_table or len(line) <= width else textwrap.fill(line, width) for line in block]
    return "\n".join(lines) + ("\n" if text.endswith("\n") else "")
