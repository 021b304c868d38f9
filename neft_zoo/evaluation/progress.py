"""Showing the progress of long work: a bar on a terminal, else a line a minute."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm
from tqdm.std import tqdm as PlainBar

from neft_zoo.console import say

SECONDS = 60.0  # between two lines


class _Lines(PlainBar):
    """A bar for files and pipes, which prints lines; work that is done within a minute prints none."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None and self.initial < self.n < self.total:  # neither the first nor the last call
            say(f"{self.desc}: {self.n} of {self.total}")


def progress_bar(
    steps: Iterable[Any] | None, what: str, *, total: int, initial: int = 0, shown: bool = True
) -> PlainBar:
    """Return a bar that counts the steps as they are iterated over, or by `update`.

    Args:
        steps: what to iterate over; None to count by `update`.
        what: the label.
        total: number of steps.
        initial: number of steps that are done already.
        shown: False shows nothing.
    """
    options: dict[str, Any] = dict(desc=what, total=total, initial=initial, disable=not shown, leave=False)
    if sys.stderr.isatty():
        return tqdm(steps, **options)
    # miniters=1 compares the time at every step: tqdm would guess how many steps take a minute.
    return _Lines(steps, mininterval=SECONDS, miniters=1, **options)
