"""Words in any script: separated by spaces, or single characters in scripts without spaces."""

from __future__ import annotations

import unicodedata

import regex  # a dependency of transformers; `re` does not support scripts

# https://www.unicode.org/reports/tr29/#Word_Boundaries: scripts in which only a dictionary finds words.
_UNSPACED = "".join(
    rf"\p{{Script_Extensions={script}}}"
    for script in (
        *("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Javanese", "Balinese"),
        *("Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet"),
    )
)
# Their digits form numbers, except 〇 and other numerals that are letters.
_CHARACTER = regex.compile(rf"[[{_UNSPACED}]&&\p{{L}}\p{{Nl}}]", regex.V1)
_CHARACTER_AND_MARKS = regex.compile(rf"{_CHARACTER.pattern}\p{{M}}*", regex.V1)
_RUN = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[[{_UNSPACED}]&&\p{{L}}\p{{Nl}}\p{{M}}]]+"
_WORD = regex.compile(rf"{_CHARACTER_AND_MARKS.pattern}|{_RUN}", regex.V1)


def words(text: str) -> list[str]:
    """Return the words of a text, including punctuation, split at spaces.

    In a piece with characters of a script without spaces, such as Chinese or Thai, each such character with its marks
    is a word, each run of other letters and digits is a word, and punctuation is dropped.
    """
    pieces = ([piece] if _CHARACTER.search(piece) is None else _WORD.findall(piece) for piece in text.split())
    return [word for piece in pieces for word in piece]


def letters_and_digits(text: str) -> list[str]:
    """Return the words of a text in lower case without punctuation, as ROUGE compares them.

    For ASCII text these are the tokens of rouge_score's own tokenizer, which drops all non-ASCII letters.
    """
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


def separated(text: str) -> str:
    """Return a text with spaces around each character of a script without spaces, and otherwise unchanged."""
    return _CHARACTER_AND_MARKS.sub(r" \g<0> ", text)
