"""Finds wording of the policy's lists: phrases, patterns, amounts beside money wording, template left-overs.

All of it runs on RE2: whatever the policy says, the time is in proportion to the text.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

import re2

from validators.engine.view import Span, View

PROGRAM_BYTES_MAX: Final = 32 * 1024 * 1024
"""Memory that one expression of the policy may take."""

AMOUNT: Final = re.compile(
    r"\$ ?\d|\d ?%|\b\d{1,4}[.,]\d{2}\b|\b(?:dollars|bucks|percent|per cent)\b"
    r"|\d ?(?:usd\b|cents\b|pct\b|x\b|/ ?h|/ ?day|(?:an|per|a) (?:hour|hr|day|shift|week))",
    re.IGNORECASE,
)
AMOUNT_NEXT: Final = re.compile(r"[\s:=-]{0,4}(?:is|of|at|was|will be|be|to)?[\s:=-]{0,4}\d", re.IGNORECASE)
SENTENCE_END: Final = re.compile(r"[.!;]\s|[.!?;]\s*\n|\n\s*\n")
LINE_END: Final = re.compile(r"[.!?;]\s|\n")
NEAR_CHARS: Final = 60

MATCHES_MAX: Final = 2000
"""Of one expression in one text: far more than are ever reported, far less than hostile text would bring."""


class BrokenPattern(ValueError):
    """An expression that RE2 does not take, or that fits the empty text; the message says which and why."""


class Expression:
    """One or more expressions as one. Where one has a group, the group is what is found, else the whole."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises `BrokenPattern`."""
        self._each = [_compiled(pattern) for pattern in patterns]
        joined = "|".join(f"(?:{pattern})" for pattern in patterns)
        self._any = _compiled(joined) if patterns else None

    def spans(self, view: View) -> Iterator[Span]:
        """In the view's own offsets; those of several expressions may overlap."""
        if self._any is None or self._any.search(view.data) is None:
            return
        for expression in self._each:
            group = 1 if expression.groups else 0
            for match in islice(expression.finditer(view.data), MATCHES_MAX):
                yield match.span(group)


def _compiled(pattern: str) -> "re2._Regexp":
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PROGRAM_BYTES_MAX
    try:
        compiled = re2.compile(pattern.encode(), options)
    except re2.error as error:
        told = error.args[0] if error.args else error
        reason = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
        raise BrokenPattern(f"has a broken pattern {pattern!r}: {reason}") from error
    if compiled.search(b"") is not None:
        raise BrokenPattern(f"has a pattern that fits nothing: {pattern!r}")
    return compiled


class Phrases:
    """Finds phrases as whole words, whatever the case, with white space or hyphens between the words."""

    def __init__(self, phrases: Sequence[str], patterns: Sequence[str] = ()) -> None:
        ordered = sorted(
            {View(phrase).text.lower().strip() for phrase in phrases} - {""}, key=lambda t: (-len(t), t)
        )
        joined = "|".join(
            r"[\s-]{1,3}".join(map(re2.escape, re.split(r"[\s-]+", phrase))) for phrase in ordered
        )
        listed = [rf"(?i)\b(?:{joined})\b"] if joined else []
        self._expression = Expression([*listed, *(f"(?i){pattern}" for pattern in patterns)])

    def spans(self, view: View) -> list[Span]:
        """In the view's own offsets, in order, the longest of those that overlap."""
        found = self._expression.spans(view)
        return distinct(span for span in found if not _possessive(view.text, span[1]))


def _possessive(text: str, end: int) -> bool:
    """`women's sizes` is not about women."""
    return text[end : end + 1] == "'" and text[end + 1 : end + 2].isalpha()


class Money:
    """Finds money wording with an amount beside it, in one sentence."""

    def __init__(self, phrases: Sequence[str]) -> None:
        self._phrases = Phrases(phrases)

    def spans(self, view: View) -> Iterator[Span]:
        """In the view's own offsets. Several such words around one amount disclose it once."""
        last = -NEAR_CHARS
        for start, end in self._phrases.spans(view):
            if start - last >= NEAR_CHARS and _amount_beside(view.text, start, end):
                yield start, end
                last = end


def _amount_beside(text: str, start: int, end: int) -> bool:
    after = text[end : end + NEAR_CHARS]
    if AMOUNT_NEXT.match(after):
        return True
    if (stop := SENTENCE_END.search(after)) is not None:
        after = after[: stop.start()]
    *_, before = LINE_END.split(text[max(0, start - NEAR_CHARS) : start])
    return AMOUNT.search(after) is not None or AMOUNT.search(before) is not None


class LeftOvers:
    """Finds what a template left behind."""

    def __init__(self, patterns: Sequence[str], exceptions: Sequence[str]) -> None:
        """Raises `BrokenPattern`."""
        self._expression = Expression(patterns)
        self._exceptions = frozenset(text.casefold() for text in exceptions)

    def spans(self, view: View) -> list[Span]:
        """In the view's own offsets, in order, the longest of those that overlap."""
        found = self._expression.spans(view)
        return distinct(span for span in found if view.text[slice(*span)].casefold() not in self._exceptions)


def distinct(spans: Iterator[Span]) -> list[Span]:
    """The spans in order; of those that overlap, the first and longest."""
    kept: list[Span] = []
    for span in sorted(set(spans), key=lambda span: (span[0], -span[1])):
        if not kept or span[0] >= kept[-1][1]:
            kept.append(span)
    return kept


def overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]
