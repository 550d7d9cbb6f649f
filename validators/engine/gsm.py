"""How many segments a text takes: GSM 03.38 septets, or UTF-16 units where one character needs them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from validators.engine.policy import SmsPolicy

BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENDED: Final = frozenset("\f^{}\\[~]|€")
"""Written as an escape and a second septet."""

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
    gsm = all(char in BASIC or char in EXTENDED for char in text)
    sizes = [2 if (char in EXTENDED if gsm else ord(char) > 0xFFFF) else 1 for char in text]
    single, multi = (
        (limits.gsm_units_single, limits.gsm_units_multi)
        if gsm
        else (limits.ucs2_units_single, limits.ucs2_units_multi)
    )
    units = sum(sizes)
    starts = tuple(_cuts(sizes, multi)) if units > single else ((0,) if text else ())
    return Segments("GSM-7" if gsm else "UCS-2", units, starts)


def _cuts(sizes: list[int], limit: int) -> Iterator[int]:
    room = 0
    for at, size in enumerate(sizes):
        if size > room:
            yield at
            room = limit
        room -= size


def plain(text: str) -> str:
    """The text with typographic characters in their ASCII form."""
    return text.translate(PLAIN)
