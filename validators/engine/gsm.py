"""How many segments a text takes: GSM 03.38 septets, or UTF-16 units where one character needs them."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Literal

from validators.engine.policy import SmsPolicy

BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENDED: Final = frozenset("\f^{}\\[~]|€")
"""Written as an escape and a second septet."""
ALPHABET: Final = BASIC | EXTENDED

BMP_MAX: Final = 0xFFFF
"""Characters beyond are two units of UTF-16."""

PLAIN: Final = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201c": '"', "\u201d": '"', "\u201e": '"',
        "\u2013": "-", "\u2014": "-", "\u2010": "-", "\u2011": "-", "\u2026": "...", "\u00a0": " ",
        "\u202f": " ", "\u2009": " ", "\t": " ", "\u2022": "-", "\u200b": "", "\u00b4": "'", "`": "'",
    }
)  # fmt: skip
"""Typographic characters that force UCS-2, and what says the same in GSM-7."""

Encoding = Literal["GSM-7", "UCS-2"]


@dataclass(frozen=True, slots=True)
class Segments:
    """`starts`: the offsets, in characters, at which segments begin. `units` are septets or UTF-16 units."""

    encoding: Encoding
    units: int
    starts: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self.starts)


def segments(text: str, limits: SmsPolicy) -> Segments:
    """Cut `text` as a handset would. No escape pair and no surrogate pair is split over two segments."""
    used = set(text)
    gsm = used <= ALPHABET
    wide = {char for char in used if (char in EXTENDED if gsm else ord(char) > BMP_MAX)}
    single, multi = (
        (limits.gsm_units_single, limits.gsm_units_multi)
        if gsm
        else (limits.ucs2_units_single, limits.ucs2_units_multi)
    )
    units = len(text) + sum(map(text.count, wide))
    if units <= single:
        starts: tuple[int, ...] = (0,) if text else ()
    else:
        starts = tuple(_cuts(text, wide, multi) if wide else range(0, units, multi))
    return Segments("GSM-7" if gsm else "UCS-2", units, starts)


def _cuts(text: str, wide: AbstractSet[str], limit: int) -> Iterator[int]:
    room = 0
    for at, char in enumerate(text):
        size = 2 if char in wide else 1
        if size > room:
            yield at
            room = limit
        room -= size


def plain(text: str) -> str:
    """The text with typographic characters in their ASCII form."""
    return text.translate(PLAIN)
