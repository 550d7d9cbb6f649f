"""A text as its reader sees it: in ASCII, without what does not print, each place traceable to the original.

Rules look for wording and numbers here, so that no zero-width sign, full-width digit, combining mark or
letter of another alphabet hides a finding.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final

Span = tuple[int, int]

OTHER_LETTER: Final = "q"
OTHER_SIGN: Final = "\x1a"
"""What stands for a letter, or for anything else, that has no ASCII reading."""

CHARS_CACHED_MAX: Final = 8192

_ODD: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_INVISIBLE: Final = frozenset("\u115f\u1160\u17b4\u17b5\u3164\uffa0")

LOOKALIKES: Final[dict[str, str]] = {
    # Cyrillic
    **dict(
        zip(
            "аеорсухіјѕԁԛԝһӏвмнкткгьзАВЕЅІЈКМНОРСТХУҮ",
            "aeopcyxijsdqwhlbmhktkrb3ABESIJKMHOPCTXYY",
            strict=True,
        )
    ),
    # Greek
    **dict(zip("οανρτυικχεηωγΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "oavptuikxenwyABEZHIKMNOPTYX", strict=True)),
    # Latin: small capitals, dotless and script letters, letters with a stroke
    **dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnoprstuvwyz", strict=True)),
    **dict(zip("ıɑɡøłđðŁØĐ", "iagolddLOD", strict=True)),
    # Armenian and Cherokee that print as Latin
    **dict(zip("оսցհՕᎪᎠᏴᏟᎬᎻᎫᏦᏞᎷᏢᎡᏚᎢᏙᎳᏃ", "ougnOADBCEHJKLMPRSTVWZ", strict=True)),  # noqa: RUF001
    "ß": "ss",
    "æ": "ae",
    "Æ": "AE",
    "œ": "oe",
    "Œ": "OE",
    "þ": "th",
    "Þ": "TH",
    **dict(zip("\u2018\u2019\u201a\u201b\u2032\u02bc\u00b4\u02b9", "'" * 8, strict=True)),
    **dict(zip("\u201c\u201d\u201e\u201f\u2033", '"' * 5, strict=True)),
    "\u2212": "-",
    "\u2043": "-",
    "\u30fc": "-",
    "\u2044": "/",
    "\u2215": "/",
    "\u29f8": "/",
    "\u3002": ".",
    "\uff61": ".",
    "\u00b7": ".",
    "\u2236": ":",
    "\ua789": ":",
    "\u2800": " ",
    "«": "<<",
    "»": ">>",
}
"""Letters and signs that print as others, or nearly."""


class View:
    """`text` is ASCII. `raw` is the original; `span` leads back to it."""

    __slots__ = ("_at", "data", "raw", "text")

    def __init__(self, raw: str) -> None:
        self.raw = raw
        self._at: list[int] | None = None
        if raw.isascii() and _ODD.search(raw) is None:
            self.text = raw
        else:
            pieces = [_seen(char) for char in raw]
            self.text = "".join(pieces)
            if any(len(piece) != 1 for piece in pieces):
                self._at = [at for at, piece in enumerate(pieces) for _ in piece]
        self.data = self.text.encode()

    def span(self, start: int, end: int) -> Span:
        """Where `[start, end)` of the view, which is not empty, stands in the original."""
        return (start, end) if self._at is None else (self._at[start], self._at[end - 1] + 1)


@lru_cache(maxsize=CHARS_CACHED_MAX)
def _seen(char: str) -> str:
    if (known := LOOKALIKES.get(char)) is not None:
        return known
    if char in _INVISIBLE:
        return ""
    category = unicodedata.category(char)
    if char < "\x80":
        return char if category != "Cc" or char in "\t\n\r" else ("\n" if char in "\x0b\x0c" else "")
    if category in _BY_CATEGORY:
        return "\n" if char == "\x85" else _BY_CATEGORY[category]
    if category == "Nd":
        return str(unicodedata.decimal(char))
    return _folded(char, category)


_BY_CATEGORY: Final = {
    "Cc": "", "Cf": "", "Mn": "", "Me": "", "Zl": "\n", "Zp": "\n", "Zs": " ", "Pd": "-", "Sc": "$"
}  # fmt: skip


def _folded(char: str, category: str) -> str:
    whole = unicodedata.normalize("NFKD", char)
    folded = "".join(LOOKALIKES.get(part, part) for part in whole if unicodedata.category(part) != "Mn")
    fraction = category == "No" and "\u2044" in whole  # a half is no 12
    if folded and folded.isascii() and not fraction:
        return folded
    return OTHER_LETTER if category.startswith("L") else OTHER_SIGN
