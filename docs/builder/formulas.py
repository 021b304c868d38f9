r"""Displayed formulas (`$$ ... $$`) and inline ones (`\( ... \)`) as MathML, which browsers draw without a script."""

from __future__ import annotations

import re

from latex2mathml.converter import convert

FENCE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
DISPLAYED = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
INLINE = re.compile(r"\\\((.+?)\\\)")
# Macros that the converter does not support.
SPELLED = {r"\arg\max": r"\mathrm{arg\,max}\;", r"\!": ""}


def mathml(tex: str, display: str = "inline") -> str:
    """Return a formula as MathML, with the TeX in `title` for copying."""
    for known, other in SPELLED.items():
        tex = tex.replace(known, other)
    return convert(" ".join(tex.split()), display=display)


def render(markdown: str) -> str:
    """Return a page with its formulas rendered, except in code."""
    parts = FENCE.split(markdown)
    for place in range(0, len(parts), 2):
        text = DISPLAYED.sub(
            lambda match: f'\n\n<div class="formula" tabindex="0">{mathml(match[1], "block")}</div>\n\n', parts[place]
        )
        parts[place] = INLINE.sub(lambda match: mathml(match[1]), text)
    return "".join(parts)
