"""RunWarnings: what the runs of a comparison warn of, said once."""

from __future__ import annotations

import re
from collections.abc import Callable

from neft_zoo.compare.measurement import Warned
from neft_zoo.console import printable


class RunWarnings:
    """Says what runs warn of: of their data once, of their noise once a row, whatever the numbers in the text.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._said = say, set[tuple[str, str]]()

    def __call__(self, warned: list[Warned], row: str) -> None:
        """Say what has not been said, and empty the list.

        Args:
            warned: of a run.
            row: its name.
        """
        for each in warned:
            of = "" if each.of_data else f"{row}: "
            known = of, re.sub(r"[\d.]+", "", each.text)
            if known not in self._said:
                self._said.add(known)
                self._say(f"warning: {of}{printable(each.text)}")
        warned.clear()
