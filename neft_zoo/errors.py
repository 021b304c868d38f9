"""The one error that means "what you passed cannot work"."""

import reprlib
from typing import Any


class NoiseError(ValueError):
    """A value that the user gave is not accepted; the message is one sentence that names it and what is."""


class _Short(reprlib.Repr):
    """A repr that fits into a sentence, whatever the value: deep, circular, or a number of a million digits."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 80, 120

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() < 64 else f"a whole number of {x.bit_length()} bits"


def shown(value: Any) -> str:
    """Return the repr of what a user passed, shortened for a message."""
    return _SHORT.repr(value)


_SHORT = _Short()
