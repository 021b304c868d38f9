"""Parsing an entry's docstring and signature for the command line and the site."""

from __future__ import annotations

import inspect
import re
import typing
from typing import Literal

from neft_zoo.noise.additive import Layers
from neft_zoo.noise.schedules import Scalar
from neft_zoo.registry.entries import Entry


def prose(entry: Entry) -> str:
    """Return the formulas and prose of an entry's docstring, without summary and sections."""
    paragraphs = inspect.cleandoc(entry.build.__doc__ or "").split("\n\n")[1:]
    body = [text for text in paragraphs if not text.startswith(("Args:", "Raises:", "Example:", "Returns:"))]
    return "\n\n".join(body)


def readable(text: str) -> str:
    """Return a text with its displayed formulas in plain characters, each on its own line."""
    return re.sub(r"\$\$(.+?)\$\$", lambda formula: f"    {_plain(formula[1])}", text, flags=re.DOTALL)


def _plain(formula: str) -> str:
    """Return a formula without TeX; braces stay around what would otherwise run together, as in d_{k+1}."""
    from pylatexenc.latex2text import LatexNodes2Text

    formula = re.sub(r"([_^])\{([^{}]*(?:[-+=,]|\\le|\\ge)[^{}]*)\}", r"\1{\\{\2\\}}", formula)
    formula = re.sub(r"(\\lVert)\s+", r"\1{}", re.sub(r"\s+(\\rVert)", r"\1{}", formula))
    formula = re.sub(r"(\\(?!bar|tilde|sqrt)[a-zA-Z]+)\s+(?=[^{\s])", r"\1{} ", formula)  # keeps the space
    return " ".join(LatexNodes2Text(math_mode="text").latex_to_text(formula).split())


def argument_texts(entry: Entry) -> dict[str, str]:
    """Return the text of every argument in the `Args:` section of a Google-style docstring."""
    sections = inspect.cleandoc(entry.build.__doc__ or "").split("\n\n")
    section = next((text for text in sections if text.startswith("Args:")), "")
    texts: dict[str, str] = {}
    for line in section.splitlines()[1:]:
        name, colon, text = line.strip().partition(": ")
        if colon and not line.startswith("        "):
            texts[name] = text
        elif texts:
            texts[list(texts)[-1]] += f" {line.strip()}"
    return texts


def spell(hint: object) -> str:
    """Return a type hint in a user's words."""
    if hint == Scalar:
        return "number or schedule"
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if hint == Layers:
        return "'all' or a list of layer numbers, or fractions of the depth"
    return _SPELLED.get(hint, str(hint))


_SPELLED: dict[object, str] = {float: "number", int: "whole number", bool: "true or false", str: "text"}
