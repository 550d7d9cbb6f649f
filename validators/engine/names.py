"""Decides whether a written name is a given person's: accents, order, initials, nicknames, plain typos.

It is strict where a difference can mean another person: `Johnson` is not `Johnston`, `Maria` is not `Mario`,
and the whole surname has to be there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from rapidfuzz.distance import OSA

from validators.engine.text import words

WORDS_MAX: Final = 10
TYPO_CHARS_MIN: Final = 4
TITLES: Final = frozenset({"mr", "mrs", "ms", "miss", "mx", "dr"})
GENERATIONS: Final = {"sr": 1, "senior": 1, "jr": 2, "junior": 2, "ii": 2, "iii": 3, "iv": 4}
"""What tells a father from his son."""

UMLAUTS: Final = str.maketrans(
    {
        "ä": "ae",
        "ö": "oe",
        "ü": "ue",
        "Ä": "Ae",
        "Ö": "Oe",
        "Ü": "Ue",
        "å": "aa",
        "Å": "Aa",
        "ø": "oe",
        "Ø": "Oe",
    }
)
"""How letters are written out where a keyboard lacks them: `Mueller` is Müller."""

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
    generation: int | None = None
    written_out: "Person | None" = None
    divided: bool = True
    """Whether it is known where the given names end and the family's begins."""

    @classmethod
    def of(cls, first_name: str, last_name: str) -> "Person":
        """`written_out` is the same person, without letters that some keyboards lack."""
        other = (first_name.translate(UMLAUTS), last_name.translate(UMLAUTS))
        return cls._of(first_name, last_name, None if other == (first_name, last_name) else cls._of(*other))

    @classmethod
    def _of(cls, first_name: str, last_name: str, written_out: "Person | None" = None) -> "Person":
        first, last = words(first_name), words(last_name)
        bare = _bare(last)
        return cls(_bare(first) or first, bare or last, _generation((*first[1:], *last)), written_out)

    @classmethod
    def of_full(cls, name: str) -> "Person":
        """From a full name in one piece: the last word is the family's, unless a comma says otherwise."""
        family, comma, given = name.partition(",")
        if comma and given.strip():
            return cls.of(given, family)
        parts = [word for word in name.split() if words(word) and words(word)[0] not in TITLES]
        last = len(parts)
        # A given and a family name stay, whatever they are.
        while last > 2 and words(parts[last - 1])[0] in GENERATIONS:
            last -= 1
        if last <= 1:
            return cls.of(name, "")
        person = cls.of(" ".join(parts[: last - 1]), " ".join(parts[last - 1 :]))
        other = person.written_out and replace(person.written_out, divided=False)
        return replace(person, divided=False, written_out=other)


class NameMatcher:
    """Compares names, with a table of nicknames."""

    def __init__(self, nicknames: Nicknames) -> None:
        self._nicknames = nicknames

    def matches(self, written: str, person: Person) -> bool:
        """Whether `written`, a full name in either order, is this person's."""
        return self._any_writing(self._matches, written, person)

    def greets(self, written: str, person: Person, *, titled: bool) -> bool:
        """Whether a greeting to `written` is to this person: a given name, a full one, `Ms. Surname`."""
        greets = self._greets_titled if titled else self._greets
        return self._any_writing(greets, written, person)

    def _any_writing(self, rule: Callable[[Words, Person], bool], written: str, person: Person) -> bool:
        """Whether the rule holds, as written or with umlauts written out on either side."""
        parts = words(written)
        bare = _bare(parts) or parts
        if not bare or len(bare) > WORDS_MAX:
            return False
        generation = _generation(parts[1:])
        if generation is not None and person.generation is not None and generation != person.generation:
            return False
        if rule(bare, person) or (person.written_out is not None and rule(bare, person.written_out)):
            return True
        other = words(written.translate(UMLAUTS))
        return other != parts and rule(_bare(other) or other, person)

    def _matches(self, parts: Words, person: Person) -> bool:
        if not person.family:
            return self._given(parts, person.given)
        if not person.given:
            return same_spelling("".join(parts), "".join(person.family))
        return any(
            self._split(parts[:cut], parts[cut:], person) or self._split(parts[cut:], parts[:cut], person)
            for cut in range(1, len(parts))
        )

    def _greets_titled(self, parts: Words, person: Person) -> bool:
        written = "".join(parts)
        known = person.given if not person.divided else ()
        families = ("".join((*known[at:], *person.family)) for at in range(1, len(known) + 1))
        if same_spelling(written, "".join(person.family)) or any(
            same_spelling(written, family) for family in families
        ):
            return True
        return self._greets(parts, person)

    def _greets(self, parts: Words, person: Person) -> bool:
        alone = len(parts) == 1 and any(self._same_given(parts[0], given) for given in person.given)
        return alone or self._given(parts, person.given) or self._matches(parts, person)

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


def _bare(parts: Words) -> Words:
    """The name without titles and generations; a generation that stands first is a given name."""
    return tuple(
        word for at, word in enumerate(parts) if word not in TITLES and (at == 0 or word not in GENERATIONS)
    )


def _generation(parts: Words) -> int | None:
    return next((GENERATIONS[word] for word in parts if word in GENERATIONS), None)
