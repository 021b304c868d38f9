"""What the commands show: tables, and nothing of what other libraries say on the way."""

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

NARROWEST = 20  # columns that the last one is never wrapped below
UNLIMITED = 10_000


@contextmanager
def quiet() -> Iterator[None]:
    """Show no warnings inside, and from here on no progress bars and remarks of datasets, hub and transformers."""
    import datasets
    import huggingface_hub
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def say(text: str) -> None:
    """Print a line about what a command does, on standard error; of several processes only the first prints it."""
    if os.environ.get("RANK", "0") == "0":
        print(f"neft-zoo: {printable(text)}", file=sys.stderr, flush=True)


class Seldom:
    """Says no more than a line in so many seconds.

    Args:
        seconds: between two lines; the first one is said that long after this was made.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self.last >= self.seconds:
            self.last = time.monotonic()
            say(text)


def show_table(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> None:
    """Print a table: drawn by rich on a terminal where it is installed, as aligned text elsewhere.

    Args:
        rows: the headings, then the lines; every row has a cell for each column.
        numbers: the columns, from 0, that are aligned at their right.
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
    """Return a text on one line without control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text)


def terminal_width() -> int:
    """Return the columns of the terminal, or of `COLUMNS`; without either, as in a pipe, there is no limit."""
    return shutil.get_terminal_size((UNLIMITED, 24)).columns


def plain_table(rows: Sequence[Sequence[str]], numbers: Sequence[int] = (), width: int | None = None) -> str:
    """Return a table as aligned text whose last column is wrapped to the width of the terminal, or to `width`."""
    *widths, longest = (max(map(len, column)) for column in zip(*rows, strict=True))
    indent = sum(widths) + 2 * len(widths)
    room = max(NARROWEST, (width or terminal_width()) - indent)
    lines = []
    for *first, last in rows:
        sized = enumerate(zip(first, widths, strict=True))
        cells = [cell.rjust(size) if at in numbers else cell.ljust(size) for at, (cell, size) in sized]
        last = last.rjust(longest) if len(widths) in numbers else last
        wrapped = [last] if len(last) <= room else textwrap.wrap(last, room)
        lines.append("  ".join([*cells, *wrapped[:1]]).rstrip())
        lines += [" " * indent + line for line in wrapped[1:]]
    return "\n".join(lines)
