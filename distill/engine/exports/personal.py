"""What is personal in one text: numbers, addresses, and names where a text says that they are names."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from schemas.distill import PiiClass

CLASSES: Final[tuple[PiiClass, ...]] = get_args(PiiClass)
NEAR_CHARS: Final = 40

_SEP: Final = "[-\u00a0\u2010-\u2015./() ]"
_RUN: Final = re.compile(rf"\d(?:{_SEP}{{0,3}}\d){{8,}}")
"""Nine digits or more with at most a few separators between two: no number that is looked for has fewer, but
for account numbers, which are found by the word before them."""
_RUN_MARGIN: Final = 4
_SALUTES: Final = re.compile(r"H(?:i|ello|ey|ola|I|ELLO) |D(?:ear |r|EAR )|M(?:r|s|iss )")
_DIGITS_ZERO: Final = bytes(0x30 if 0x30 <= octet <= 0x39 else 0x61 for octet in range(256))
_ASCII_SEPS: Final = b"-./() "
_ADDRESS, _NUMBERS, _ACCOUNT, _LABEL, _SALUTE = 1, 2, 4, 8, 16

EMAIL: Final = re.compile(r"[\w.+%'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}")
SSN: Final = re.compile(
    r"(?<![\d-])(\d{3})[-\u2010-\u2015. \u00a0](\d{2})[-\u2010-\u2015. \u00a0](\d{4})(?![\d-])"
)
BARE_NINE: Final = re.compile(r"(?<!\d)(\d{3})(\d{2})(\d{4})(?!\d)")
CARD: Final = re.compile(r"(?<!\d)\d(?:[- \u00a0\u2010-\u2015.]?\d){12,18}(?!\d)")
CARD_START: Final = re.compile(r"4|5[1-5]|2[2-7]|3[4-9]|6")
IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
ACCOUNT: Final = re.compile(
    r"(?i:\b(?:bank|checking|savings|deposit)[ _-]{0,3}(?:account|acct)"
    r"|\b(?:account|acct)[ ._-]{0,3}(?:number|num\b|no\b|#))"
    r"[^\d\n]{0,20}(\d(?:[ -]?\d){5,16})(?!\d)"
)
PHONE: Final = re.compile(
    rf"(?<![\w.+-])(?:\+?1{_SEP}{{0,2}})?(?:\([2-9]\d\d\){_SEP}{{0,2}}|[2-9]\d\d{_SEP}{{1,2}})[2-9]\d\d{_SEP}{{1,2}}\d{{4}}(?![\w-])"
    rf"|\+\d{{1,3}}(?:{_SEP}{{0,2}}\d){{7,12}}(?!\d)"
)
BARE_PHONE: Final = re.compile(r"(?<![\w.+-])1?[2-9]\d\d[2-9]\d{6}(?![\w-])")

SSN_WORDS: Final = re.compile(r"(?i:\b(?:ssn|itin|social security|soc sec)\b)")
ROUTING_WORDS: Final = re.compile(r"(?i:\b(?:routing|aba|rtn)\b)")
PHONE_WORDS: Final = re.compile(r"(?i:phone|\bcell|mobile|\btel\b|\bcall\b|\bsms\b|\btext\b|\"to\")")

_NAME: Final = r"[^\W\d_a-z][\w'\u2019-]+"
JSON_NAME: Final = re.compile(
    r"\"(?:[a-z]+_)?(?:name|Name)\"\s{0,4}:\s{0,4}\"([^\"\\]{2,80})\"|\"(?:first|last|full|given|family)Name\"\s{0,4}:\s{0,4}\"([^\"\\]{2,80})\""
)
_TITLES: Final = r"(?:Mr|Ms|Mrs|Dr)\.? |Miss "
SALUTED: Final = re.compile(
    rf"\b(?:(?:Hi|Hello|Hey|Dear|Hola|HI|HELLO|DEAR) (?:{_TITLES})?|{_TITLES})({_NAME}(?: {_NAME}){{0,2}})"
)
LABELLED: Final = re.compile(rf"[:=] {{0,2}}({_NAME}(?: {_NAME}){{1,2}})")
LABELS: Final = ("name", "worker", "candidate", "employee", "recipient", "contact")
NOBODY: Final = frozenset(
    [
        "all",
        "team",
        "there",
        "everyone",
        "everybody",
        "folks",
        "sir",
        "madam",
        "hiring",
        "manager",
        "crew",
        "staff",
        "world",
        "friend",
        "friends",
        "colleague",
        "colleagues",
        "customer",
        "client",
        "clients",
        "worker",
        "workers",
    ]
)


@dataclass(frozen=True, slots=True)
class Span:
    """Something personal in a text; `key` is equal for equal values."""

    start: int
    end: int
    kind: PiiClass
    key: str


def look(text: str) -> int:
    """What a text may hold, as bits: a cheap look, so that few texts need a closer one.

    Never 0 where `spans` or `names_in` would find something.
    """
    lower = text.lower()
    return (
        ("@" in text) * _ADDRESS
        | _has_run(text) * _NUMBERS
        | ("account" in lower or "acct" in lower) * _ACCOUNT
        | _labels(lower) * _LABEL
        | (_SALUTES.search(text) is not None) * _SALUTE
    )


def _has_run(text: str) -> bool:
    """Whether there may be nine digits in a run."""
    if text.isascii():
        return b"000000000" in text.encode().translate(_DIGITS_ZERO, _ASCII_SEPS)
    return _RUN.search(text) is not None


def spans(text: str, names: Sequence[str] = (), *, seen: int | None = None) -> list[Span]:
    """What is personal in a text, from left to right, none overlapping another. `seen` is its `look`."""
    seen = look(text) if seen is None else seen
    found: list[Span] = []
    if seen & _ADDRESS:
        found += [Span(*match.span(), "email", match[0].casefold()) for match in EMAIL.finditer(text)]
    if seen & _NUMBERS:
        for digits in _RUN.finditer(text):
            found += _numbers(text, *digits.span())
        found += [
            Span(*one.span(), "bank", one[0].replace(" ", ""))
            for one in IBAN.finditer(text)
            if _is_iban(one[0])
        ]
    if seen & _ACCOUNT:
        found += [Span(*match.span(1), "bank", _bare(match[1])) for match in ACCOUNT.finditer(text)]
    for name in names:
        found += _places(text, name)
    return _apart(found)


def _places(text: str, name: str) -> Iterator[Span]:
    """Where a name stands as whole words."""
    at = text.find(name)
    while at >= 0:
        end = at + len(name)
        if not _in_word(text[at - 1 : at]) and not _in_word(text[end : end + 1]):
            yield Span(at, end, "name", name.casefold())
        at = text.find(name, end)


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def names_in(text: str, *, seen: int | None = None) -> Iterator[str]:
    """Names that the text itself says are names. `seen` is its `look`."""
    seen = look(text) if seen is None else seen
    found: list[str] = []
    if seen & _LABEL:
        found += [next(filter(None, match.groups())) for match in JSON_NAME.finditer(text)]
        found += [match[1] for match in LABELLED.finditer(text) if _is_label(text, match.start())]
    if seen & _SALUTE:
        found += [match[1] for match in SALUTED.finditer(text)]
    for one in found:
        name = one.strip()
        words = name.casefold().split()
        if len(name) > 2 and not NOBODY.intersection(words) and not name.startswith("["):
            yield name


def _is_label(text: str, end: int) -> bool:
    """Whether the words before a colon say that a name follows."""
    return text[max(0, end - 16) : end].rstrip().lower().endswith(LABELS)


def _labels(lower: str) -> bool:
    return any(label in lower for label in LABELS)


def _numbers(text: str, run_start: int, run_end: int) -> Iterator[Span]:
    """What a run of digits and separators holds. A few characters around it are looked at too."""
    base = max(0, run_start - _RUN_MARGIN)
    part = text[base : run_end + _RUN_MARGIN]
    for match in PHONE.finditer(part):
        yield _span(base, match, "phone")
    for match in BARE_PHONE.finditer(part):
        if _before(PHONE_WORDS, text, base + match.start()):
            yield _span(base, match, "phone")
    yield from _grave_numbers(text, part, base)


def _grave_numbers(text: str, part: str, base: int) -> Iterator[Span]:
    for match in SSN.finditer(part):
        if _issued(*match.groups()):
            yield _span(base, match, "ssn")
    for match in BARE_NINE.finditer(part):
        if _issued(*match.groups()) and _before(SSN_WORDS, text, base + match.start()):
            yield _span(base, match, "ssn")
        elif _is_routing(match[0]) and _before(ROUTING_WORDS, text, base + match.start()):
            yield _span(base, match, "bank")
    for match in CARD.finditer(part):
        digits = _bare(match[0])
        if CARD_START.match(digits) and _luhn(digits):
            yield _span(base, match, "card")


def _span(base: int, match: re.Match[str], kind: PiiClass) -> Span:
    key = _bare(match[0])
    return Span(base + match.start(), base + match.end(), kind, key[-10:] if kind == "phone" else key)


def _apart(found: list[Span]) -> list[Span]:
    """Of spans that overlap, the graver class; within a class the longer."""
    if len(found) < 2:
        return found
    chosen: list[Span] = []
    for one in sorted(found, key=lambda span: (CLASSES.index(span.kind), span.start - span.end, span.start)):
        if all(one.end <= other.start or one.start >= other.end for other in chosen):
            chosen.append(one)
    return sorted(chosen, key=lambda span: span.start)


def _issued(area: str, group: str, serial: str) -> bool:
    """Whether an SSN of these parts can exist; of the 9xx only taxpayer numbers (ITIN) do."""
    if area[0] == "9":
        return 50 <= int(group) <= 65 or 70 <= int(group) <= 88 or 90 <= int(group) <= 99
    return int(area) not in (0, 666) and int(group) != 0 and int(serial) != 0


def _luhn(digits: str) -> bool:
    values = [int(digit) for digit in reversed(digits)]
    doubled = (2 * value for value in values[1::2])
    return (sum(values[::2]) + sum(value - 9 * (value > 9) for value in doubled)) % 10 == 0


def _is_routing(digits: str) -> bool:
    weighted = (weight * int(digit) for weight, digit in zip((3, 7, 1) * 3, digits, strict=True))
    return sum(weighted) % 10 == 0


def _is_iban(text: str) -> bool:
    letters = text.replace(" ", "")
    turned = letters[4:] + letters[:4]
    return len(letters) >= 15 and int("".join(str(int(one, 36)) for one in turned)) % 97 == 1


def _bare(text: str) -> str:
    return re.sub(r"\D", "", text)


def _before(words: re.Pattern[str], text: str, start: int) -> bool:
    return words.search(text, max(0, start - NEAR_CHARS), start) is not None
