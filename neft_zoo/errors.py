"""`NoiseError`, and how values and foreign errors are put into its one sentence."""

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
    """A value that the user gave is not accepted; the message is one sentence that names it and what is."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class NoiseWarning(UserWarning):
    """Noise or data that are accepted, but are not what a user may expect; a comparison hands on those of its runs."""


class DataWarning(NoiseWarning):
    """Part of the data is not used; said by every command, also by those that show no other warnings."""


class _Short(reprlib.Repr):
    """A repr that fits into a sentence, whatever the value: deep, circular, or a number of a million digits."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 80, 120

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() < 64 else f"a whole number of {x.bit_length()} bits"

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(redact(x), level)  # before it is cut: half a secret would not be known

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        return super().repr_dict({key: MASK if is_secret(key) else value for key, value in x.items()}, level)


def shown(value: Any) -> str:
    """Return the repr of what a user passed, shortened and without secrets, for a message."""
    return _SHORT.repr(value)


def one_line(error: object, limit: int = 300) -> str:
    """Return the message of another library's error on one line, without a full stop at its end.

    Args:
        error: the error, or its text.
        limit: characters at most.
    """
    text = " ".join(str(error).split())
    if not text and isinstance(error, BaseException):
        text = type(error).__name__
    return redact(text)[:limit].rstrip(".")


@contextmanager
def as_sentence(what: str) -> Iterator[None]:
    """Raise what other libraries raise inside the block as a `NoiseError`.

    Args:
        what: what must hold, the first half of its sentence.

    Raises:
        NoiseError: with the first line of the other error; one of ours is left as it is.
    """
    try:
        yield
    except NoiseError:
        raise
    except Exception as error:
        # The message of a KeyError alone says nothing.
        kind = (
            "" if isinstance(error, (OSError, ValueError, RuntimeError, ImportError)) else f"{type(error).__name__} "
        )
        raise NoiseError(f"{what}: {kind}{one_line(error)}.") from error


def did_you_mean(name: str, accepted: Iterable[str], dashes: str = "", cutoff: float = 0.6) -> str:
    """Return the end of a sentence about an unknown name: the nearest accepted one, or a full stop.

    Args:
        name: the unknown one.
        accepted: all others.
        dashes: written before the accepted one; they make no two names alike.
        cutoff: how alike the two must be, from 0 to 1.
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
