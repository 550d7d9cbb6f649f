"""The names people have: pools drawn once from Faker, then combined worker by worker."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from faker import Faker

_DRAWS: Final = 1_500
_NOT_LATIN_LETTERS: Final = re.compile(r"[^a-z0-9]+")
_LETTERS_WITHOUT_MARKS: Final = str.maketrans(
    {"ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ø": "o", "Ø": "O", "ß": "ss"}
)

HERITAGES: Final = (
    # Faker's locale, share of the roster
    ("en_US", 0.54),
    ("en_IE", 0.10),
    ("es_MX", 0.20),
    ("pl_PL", 0.06),
    ("pt_BR", 0.05),
    ("fr_FR", 0.05),
)
_MORE_SURNAMES: Final = {
    "en_US": (
        "D'Amico", "D'Angelo", "Désir", "McDonald", "MacLeod", "N'Diaye", "Nguyễn", "O'Neal", "O’Dowd",
        "Okafor-Reed", "Smith-Jones", "St. John", "Trần", "Van Buren",
    ),
}  # fmt: skip
"""What the locale's own list lacks: apostrophes of both kinds, hyphens, particles."""


@dataclass(frozen=True, slots=True)
class Pool:
    """First and last names that go together; early ones are meant to be the common ones."""

    share: float
    first: tuple[str, ...]
    last: tuple[str, ...]


def pools(seed: int) -> tuple[Pool, ...]:
    """One pool a heritage. Faker has a generator of its own here, so its global one is left alone."""
    made = []
    for locale, share in HERITAGES:
        fake = Faker(locale)
        fake.seed_instance(f"{seed}/{locale}")
        first = [_normal(fake.first_name()) for _ in range(_DRAWS)]
        last = [_normal(fake.last_name()) for _ in range(_DRAWS)]
        made.append(Pool(share, _distinct(first), _distinct([*last, *_MORE_SURNAMES.get(locale, ())])))
    return tuple(made)


def mail_part(name: str) -> str:
    """A name as the ASCII letters and digits that e-mail addresses are made of."""
    plain = unicodedata.normalize("NFKD", name.translate(_LETTERS_WITHOUT_MARKS))
    return _NOT_LATIN_LETTERS.sub("", plain.casefold().encode("ascii", "ignore").decode())


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())


def _distinct(names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
