"""`NoiseError`, and the formatting of values and other errors in its message."""

from __future__ import annotations

import difflib
import importlib
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from neft_zoo.redaction import MASK, is_secret, redact


class NoiseError(ValueError):
    """Raised for an invalid value from the user; the message is one sentence with the value and what is accepted."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class NoiseWarning(UserWarning):
    """Warning about accepted noise or data that a user may not expect; a comparison repeats those of its runs."""


class DataWarning(NoiseWarning):
    """Warning that part of the data is not used, shown even by commands that suppress other warnings."""


class _Short(reprlib.Repr):
    """A repr that fits into a sentence for any value: deeply nested, circular, or a number of a million digits."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 80, 120

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() < 64 else f"a whole number of {x.bit_length()} bits"

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(redact(x), level)  # before truncation: half a secret would not be recognized

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        return super().repr_dict({key: MASK if is_secret(key) else value for key, value in x.items()}, level)


def shown(value: Any) -> str:
    """Return the shortened repr of a value from the user, without secrets, for a message."""
    return _SHORT.repr(value)


def one_line(error: object, limit: int = 300) -> str:
    """Return the message of another library's error on one line, without a full stop.

    Args:
        error: the error, or its text.
        limit: maximum number of characters.
    """
    text = " ".join(str(error).split())
    if not text and isinstance(error, BaseException):
        text = type(error).__name__
    return redact(text)[:limit].rstrip(".")


@contextmanager
def as_sentence(what: str) -> Iterator[None]:
    """Raise errors of other libraries in this context as a `NoiseError`.

    Args:
        what: the condition that does not hold, as the first half of the sentence.

    Raises:
        NoiseError: with the first line of the other error; a `NoiseError` is raised unchanged.
    """
    try:
        yield
    except NoiseError:
        raise
    except Exception as error:
        # The message of a KeyError is only the key.
        kind = (
            "" if isinstance(error, (OSError, ValueError, RuntimeError, ImportError)) else f"{type(error).__name__} "
        )
        raise NoiseError(f"{what}: {kind}{one_line(error)}.") from error


def did_you_mean(name: str, accepted: Iterable[str], dashes: str = "", cutoff: float = 0.6) -> str:
    """Return the end of a sentence about an unknown name: the most similar accepted one, or a full stop.

    Args:
        name: the unknown name.
        accepted: all valid names.
        dashes: prefix of the suggestion; it does not count for the similarity.
        cutoff: minimum similarity, from 0 to 1.
    """
    near = difflib.get_close_matches(name[:80], list(accepted), n=1, cutoff=cutoff)
    return f"; did you mean {dashes}{near[0]}?" if near else "."


def require(module: str, what: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: its name, such as `matplotlib.figure`.
        what: what needs it, as the subject of a sentence.
        extra: the extra of this package that installs it.

    Raises:
        NoiseError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise NoiseError(f"{what} needs {package}: pip install 'neft-zoo[{extra}]'.") from None


_SHORT = _Short()
