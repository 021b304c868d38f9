"""RunWarnings: deduplicated warnings of the runs in a comparison."""

from __future__ import annotations

import re
from collections.abc import Callable

from neft_zoo.compare.measurement import Warned
from neft_zoo.console import printable


class RunWarnings:
    """Prints warnings about data once, and warnings about noise once per row, ignoring the numbers in their text.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._said = say, set[tuple[str, str]]()

    def __call__(self, warned: list[Warned], row: str) -> None:
        """Print the warnings that have not been printed yet, and empty the list.

        Args:
            warned: the warnings of a run.
            row: its name.
        """
        for each in warned:
            of = "" if each.of_data else f"{row}: "
            known = of, re.sub(r"[\d.]+", "", each.text)
            if known not in self._said:
                self._said.add(known)
                self._say(f"warning: {of}{printable(each.text)}")
        warned.clear()
