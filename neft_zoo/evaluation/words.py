"""Words of texts in any script: between blanks, or characters in a script that writes without blanks."""

from __future__ import annotations

import unicodedata

import regex  # transformers depends on it; `re` knows no scripts

# https://www.unicode.org/reports/tr29/#Word_Boundaries: in these, words are found with a dictionary only.
_UNSPACED = "".join(
    rf"\p{{Script_Extensions={script}}}"
    for script in (
        *("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Javanese", "Balinese"),
        *("Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet"),
    )
)
_CHARACTER = regex.compile(rf"[[{_UNSPACED}]&&\p{{L}}]", regex.V1)
_CHARACTER_AND_MARKS = regex.compile(rf"{_CHARACTER.pattern}\p{{M}}*", regex.V1)
_WORD = regex.compile(rf"[[{_UNSPACED}]&&\p{{L}}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+", regex.V1)


def words(text: str) -> list[str]:
    """Return the words of a text, with their punctuation: what blanks separate.

    Where a piece between blanks has a character of a script without blanks, such as Chinese or Thai, each such
    character with its marks is a word, each run of other letters and digits is one, and punctuation is none.
    """
    pieces = ([piece] if _CHARACTER.search(piece) is None else _WORD.findall(piece) for piece in text.split())
    return [word for piece in pieces for word in piece]


def letters_and_digits(text: str) -> list[str]:
    """Return the words of a text in lower case without punctuation, as ROUGE compares them.

    For text in ASCII these are the tokens of rouge_score's own tokenizer, which drops all other letters.
    """
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


def separated(text: str) -> str:
    """Return a text with blanks around each character of a script without blanks, and all else as it is."""
    return _CHARACTER_AND_MARKS.sub(r" \g<0> ", text)
