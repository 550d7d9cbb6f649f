"""Decides whether a written name is a given person's: accents, order, initials, nicknames, plain typos.

It is strict where a difference can mean another person: `Johnson` is not `Johnston`, `Maria` is not `Mario`,
and the whole surname has to be there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from rapidfuzz.distance import OSA

from validators.engine.text import words

WORDS_MAX: Final = 10
TYPO_CHARS_MIN: Final = 4
TITLES: Final = frozenset({"mr", "mrs", "ms", "miss", "mx", "dr", "sr", "jr", "ii", "iii", "iv"})

Nicknames = Mapping[str, frozenset[str]]
Words = tuple[str, ...]


def _undoubled(text: str) -> str:
    return "".join(letter for letter, _ in groupby(text))


def same_spelling(one: str, other: str) -> bool:
    """Equal, but for two neighbours swapped or a letter doubled: slips that do not make another name."""
    if one == other:
        return True
    if min(len(one), len(other)) < TYPO_CHARS_MIN:
        return False
    swapped = sorted(one) == sorted(other) and OSA.distance(one, other, score_cutoff=1) == 1
    return swapped or _undoubled(one) == _undoubled(other)


@dataclass(frozen=True, slots=True)
class Person:
    """A person's name on the roster, in words."""

    given: Words
    family: Words

    @classmethod
    def of(cls, first_name: str, last_name: str) -> "Person":
        family = tuple(word for word in words(last_name) if word not in TITLES)
        return cls(words(first_name), family or words(last_name))

    @classmethod
    def of_full(cls, name: str) -> "Person":
        """From a full name in one piece: the last word is the family's, unless a comma says otherwise."""
        family, comma, given = name.partition(",")
        if comma and given.strip():
            return cls.of(given, family)
        parts = [word for word in name.split() if words(word) and words(word)[0] not in TITLES]
        return cls.of(" ".join(parts[:-1]), parts[-1]) if len(parts) > 1 else cls.of(name, "")


class NameMatcher:
    """Compares names, with a table of nicknames."""

    def __init__(self, nicknames: Nicknames) -> None:
        self._nicknames = nicknames

    def matches(self, written: str, person: Person) -> bool:
        """Whether `written`, a full name in either order, is this person's."""
        parts = _untitled(words(written))
        if not parts or len(parts) > WORDS_MAX:
            return False
        if not person.family:
            return self._given(parts, person.given)
        if not person.given:
            return same_spelling("".join(parts), "".join(person.family))
        return any(
            self._split(parts[:cut], parts[cut:], person) or self._split(parts[cut:], parts[:cut], person)
            for cut in range(1, len(parts))
        )

    def greets(self, written: str, person: Person, *, titled: bool) -> bool:
        """Whether a greeting to `written` is to this person: a given name, a full one, `Ms. Surname`."""
        parts = _untitled(words(written))
        if not parts or len(parts) > WORDS_MAX:
            return False
        if titled and same_spelling("".join(parts), "".join(person.family)):
            return True
        alone = len(parts) == 1 and any(self._same_given(parts[0], given) for given in person.given)
        return alone or self._given(parts, person.given) or self.matches(written, person)

    def _split(self, given: Words, family: Words, person: Person) -> bool:
        return same_spelling("".join(family), "".join(person.family)) and self._given(given, person.given)

    def _given(self, written: Words, given: Words) -> bool:
        if not written or not given:
            return not given and not written
        if same_spelling("".join(written), "".join(given)):
            return True
        first, *middle = written
        if not (self._same_given(first, given[0]) or (len(first) == 1 and given[0].startswith(first))):
            return False
        return self._middle(tuple(middle), given[1:])

    def _middle(self, written: Words, given: Words) -> bool:
        """Further given names: those written have to be on the roster; a lone initial may be news."""
        if not given:
            return all(len(word) == 1 for word in written)
        return all(
            any(name == word or (len(word) == 1 and name[0] == word) for name in given) for word in written
        )

    def _same_given(self, one: str, other: str) -> bool:
        if same_spelling(one, other):
            return True
        meanings, others = self._nicknames.get(one, frozenset()), self._nicknames.get(other, frozenset())
        if one in others or other in meanings:
            return True  # one of them is the formal name
        both_short = one not in meanings and other not in others
        return both_short and bool(meanings & others)


def _untitled(parts: Words) -> Words:
    return tuple(word for word in parts if word not in TITLES) or parts
