"""Brings names, roles and places to the form in which they are compared."""

import re
import unicodedata
from functools import lru_cache
from typing import Final

CHARS_MAX: Final = 400
"""Longer than any name: what lies beyond is not looked at, so that hostile text costs little."""

FOLDED_MAX: Final = 16_384
"""Names, roles and places come again and again."""

_MARKS: Final = re.compile("[\u0300-\u036f]")
_APOSTROPHES: Final = re.compile("['\u2018\u2019\u02bc\u0060\u00b4\u02b9\u2032]")
_BREAKS: Final = re.compile(r"[\W_]+")
# Letters that stay whole under decomposition and are commonly typed in ASCII.
_LETTERS: Final = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "\u0131": "i"}
)


@lru_cache(maxsize=FOLDED_MAX)
def fold(text: str) -> str:
    """Lower-case words parted by single spaces: no accents, no apostrophes, no punctuation.

    Scripts are kept apart: a Cyrillic letter never becomes the Latin one that it looks like.
    """
    text = unicodedata.normalize("NFKD", text[:CHARS_MAX]).casefold()
    text = _APOSTROPHES.sub("", _MARKS.sub("", text)).translate(_LETTERS)
    return " ".join(_BREAKS.split(unicodedata.normalize("NFC", text))).strip()


def words(text: str) -> tuple[str, ...]:
    return tuple(fold(text).split())


def mask(text: str) -> str:
    """The initials alone: `María O'Connor` becomes `M. O.`."""
    return " ".join(f"{word[0]}." for word in text.split()[:4])
