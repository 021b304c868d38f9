"""Keeping secrets out of everything that is saved or printed.

A secret is recognized where it enters: by the name of an option or variable (`hub_token`, `WANDB_API_KEY`), as the
password in a URL, or by its form (`hf_...`). From then on its value is hidden everywhere, in other libraries' output
too.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import IO, Any, TypeVar, cast
from urllib.parse import quote, unquote

T = TypeVar("T")
MASK = "***"
NAME = re.compile(
    r"(?:^|[^A-Za-z]|(?<=[a-z])(?=[A-Z]))"
    r"(?i:token|password|passwd|passphrase|pwd|secret|credentials?|auth|authorization"
    r"|(?:api|access|secret|private|account|auth|encryption|client)[_-]?key)$"
    r"|[A-Z]_KEY$"
)
# Names of vocabulary tokens, of token counts, and of the working directory.
HARMLESS = re.compile(r"^PWD$|(?:bos|eos|pad|unk|sep|cls|mask|image|video|audio|stop|per|max|min)_token$")
CREDENTIALS = re.compile(r"(?<=://)([^\s/:@]*):([^\s/@]+)(?=@)")
QUERY = re.compile(
    r"(?<=[?&;])([\w.-]*(?:token|password|passwd|pwd|secret|key|credential|auth|signature|sig))=([^\s&#'\"]+)",
    re.IGNORECASE,
)
BEARER = re.compile(r"(?<=\bBearer )[\w.~+/=-]{8,}", re.IGNORECASE)
SHAPES = re.compile(
    r"\b(?:hf_\w{20,}|sk-[\w-]{20,}|gh[opsur]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abp]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16})"
)
# An option that is a URL: its password may contain slashes, which would be ambiguous in running text.
URL = re.compile(r"[\w+.-]+://(?:[^\s/:@]*):(?P<password>[^\s]+)@[^\s@]*")
LONE = re.compile(r"(?<=://)[^\s/:@]{16,}(?=@)")  # a token in place of the user name
# Shorter secrets are ordinary words: hiding them everywhere would garble what is saved.
SHORTEST = 6

_known: set[str] = set()


def is_secret(name: object) -> bool:
    """Return whether an option or a variable of this name holds a secret."""
    return isinstance(name, str) and bool(NAME.search(name)) and not HARMLESS.search(name)


def remember(value: object, name: object = "") -> None:
    """Hide the secrets in a value from now on, in everything that this process saves or prints.

    Args:
        value: of an option, or a mapping of options.
        name: of the option.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            remember(inner, name if is_secret(name) else key)
    elif isinstance(value, list | tuple):
        for inner in value:
            remember(inner, name)
    elif isinstance(value, str) and value.startswith("{") and (inner := _mapping(value)):
        remember(inner, name)
    elif isinstance(value, str):
        found = [value] if is_secret(name) else list(_in_text(value))
        _known.update(form for secret in found if len(secret) >= SHORTEST for form in _forms(secret))


def remember_command_line(argv: Iterable[str]) -> None:
    """Hide the secrets in flags, given as `--hub_token VALUE` or `--hub_token=VALUE`."""
    flag = ""
    for argument in argv:
        remember(argument, flag)  # a secret may begin with -- as well, and is then refused as an unknown flag
        name, equals, value = argument.partition("=")
        is_flag = argument.startswith("--")
        remember(value if is_flag and equals else "", name)
        flag = name if is_flag and not equals else ""


def redact(value: T, known: Collection[str] | None = None) -> T:
    """Return a value without secrets: those under secret keys of mappings, and all others in texts.

    Args:
        value: a text or JSON values; other types are returned unchanged.
        known: values to hide; by default those remembered and those in the environment.
    """
    known = sorted(_known | _of_environment(), key=len, reverse=True) if known is None else known
    return cast(T, _redacted(value, known))


@contextmanager
def redacting_streams() -> Iterator[None]:
    """Hide secrets in everything printed inside this context, by other libraries too."""
    import sys

    out, err = cast(Any, _Redacting(sys.stdout)), cast(Any, _Redacting(sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        yield


class _Redacting:
    """A text stream that writes no secrets; a secret that is split over several writes is not detected."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(redact(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _redacted(value: object, known: Collection[str]) -> object:
    if isinstance(value, str):
        return _text(value, known)
    if isinstance(value, Mapping):
        return {_redacted(key, known): hidden(key, inner, known) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        inner = [_redacted(each, known) for each in value]
        return inner if isinstance(value, list) else tuple(inner)
    return value


def hidden(key: object, value: object, known: Collection[str] = ()) -> object:
    """Return the value of a key without secrets; under a secret key, a number is hidden unless it is a count."""
    if not is_secret(key):
        return _redacted(value, known)
    if isinstance(value, Mapping):
        return {_redacted(inner, known): hidden(key, secret, known) for inner, secret in value.items()}
    if isinstance(value, list | tuple):
        return [hidden(key, secret, known) for secret in value]
    is_code = isinstance(value, int) and not isinstance(value, bool) and "pass" in str(key).lower()
    return MASK if is_code or (isinstance(value, str) and value) else value


def _text(text: str, known: Collection[str]) -> str:
    for secret in known:
        if secret in text:
            text = text.replace(secret, MASK)
    text = SHAPES.sub(MASK, BEARER.sub(MASK, text))
    return QUERY.sub(rf"\1={MASK}", LONE.sub(MASK, CREDENTIALS.sub(rf"\1:{MASK}", text))) if "://" in text else text


def _mapping(text: str) -> object:
    """Return the mapping that a text encodes as JSON, or None."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _in_text(text: str) -> Iterator[str]:
    """Yield the secrets in a text."""
    yield from SHAPES.findall(text)
    yield from BEARER.findall(text)
    yield from LONE.findall(text)
    yield from (secret for _, secret in QUERY.findall(text))
    url = URL.fullmatch(text)
    yield from [url["password"]] if url else (secret for _, secret in CREDENTIALS.findall(text))


def _forms(secret: str) -> set[str]:
    """Return the forms in which a secret may be written: quoted in a URL or not, and as in a repr."""
    return {secret, unquote(secret), quote(secret, safe=""), repr(secret)[1:-1]}


def _of_environment() -> set[str]:
    named = {value for name, value in os.environ.items() if len(value) >= SHORTEST and is_secret(name)}
    return {value for value in named if not os.path.exists(value)}  # GOOGLE_APPLICATION_CREDENTIALS is a path
