"""Finds whom a message greets."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from validators.engine.policy import GreetingPolicy
from validators.engine.text import fold

WORD: Final = re.compile(r"[^\W\d_][\w'\u2019-]{0,40}")
BARE: Final = re.compile(r"\s{0,10}(?P<name>[^\W\d_][\w'\u2019-]{0,40})(?:,|!| [-\u2013\u2014] )")
TITLES: Final = frozenset({"mr", "mrs", "ms", "miss", "mx", "dr"})
ENDS: Final = frozenset(",!:;?\n\u2013\u2014")
SHORTENED: Final = frozenset({"st", "ste", "jr", "sr", "fr"})
"""Parts of names whose full stop ends nothing: `Kim St. John`."""
WORDS_MAX: Final = 6

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Greeting:
    """The greeted name. `span` is the name's; `replaced` takes in a title before it."""

    name: str
    span: Span
    replaced: Span
    titled: bool


class GreetingFinder:
    """Reads the opening of a text: `Hi Bob,`, `Dear Ms. Young:`, `Hello Maria your shift ...`, `Bob, ...`.

    Without an opening word, only a given name of the policy's table counts: `Monday, ...` greets nobody.
    """

    def __init__(self, policy: GreetingPolicy, given_names: Iterable[str] = ()) -> None:
        openers = "|".join(re.escape(opener) for opener in sorted(policy.openers, key=len, reverse=True))
        self._opener = re.compile(rf"\W{{0,10}}(?:{openers})\b[ \t]{{0,3}},?[ \t]{{0,3}}", re.IGNORECASE)
        self._not_names = frozenset(fold(word) for word in policy.not_names)
        self._given_names = frozenset(given_names) - self._not_names

    def find(self, text: str) -> Greeting | None:
        """The greeting at the start of `text`; None where it greets nobody by name."""
        opening = self._opener.match(text)
        if opening is None:
            return self._bare(text)
        begin = at = opening.end()
        titled = False
        spans: list[Span] = []
        while len(spans) < WORDS_MAX and (match := WORD.match(text, at)) is not None:
            word, after = match[0], match.end()
            if not spans and not titled and word.lower() in TITLES:
                titled = True
                at = _skip(text, after, ". ")
                continue
            ended = _ends(text, after, word)
            if fold(word) in self._not_names or not (word[0].isupper() or (ended and not spans)):
                if ended:
                    return None  # "Hi all,", "Hello night crew!"
                break
            spans.append(match.span())
            if ended:
                return _greeting(text, spans, begin, titled)
            at = _skip(text, after, ". ")
        # Nothing ends the name, so only its first word is sure to belong to it.
        return _greeting(text, spans[:1], begin, titled) if spans else None

    def _bare(self, text: str) -> Greeting | None:
        match = BARE.match(text)
        if match is None or fold(match["name"]) not in self._given_names:
            return None
        span = match.span("name")
        return Greeting(match["name"], span, span, titled=False)


def _greeting(text: str, spans: list[Span], begin: int, titled: bool) -> Greeting:
    start, end = spans[0][0], spans[-1][1]
    return Greeting(text[start:end], (start, end), (begin, end), titled)


def _skip(text: str, at: int, chars: str) -> int:
    while at < len(text) and text[at] in chars:
        at += 1
    return at


def _ends(text: str, at: int, word: str) -> bool:
    """Whether the name ends here: at punctuation, at a full stop that is no initial's, or with the text."""
    rest = text[at : at + 2]
    if not rest or rest[0] in ENDS or rest == " -":
        return True
    return rest[0] == "." and len(word) > 1 and word.lower() not in SHORTENED
