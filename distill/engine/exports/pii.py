"""Personal data in training rows: found in every text of a row, then masked or refused by policy.

A masked value becomes `[EMAIL_1]`: one placeholder for one value throughout the row, so that an answer which
copies an address from the prompt still does. Names are found where a text says that they are names (JSON
fields, salutations, labels), and then masked wherever they stand in the row.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from distill.engine.exports.targets import Row, Unfit
from schemas.distill import PiiAction, PiiClass, PiiPolicy

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

PLAIN: Final = frozenset(
    (
        "role",
        "content",
        "messages",
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "conversations",
        "from",
        "value",
        "input",
        "preferred_output",
        "non_preferred_output",
        "weight",
        "tools",
        "tool_calls",
        "id",
        "type",
        "function",
        "name",
        "arguments",
        "system",
        "user",
        "assistant",
        "tool",
        "human",
        "gpt",
        "schema",
        "schema_version",
        "ext",
        "evidence_id",
        "task",
        "query",
        "text",
        "kind",
        "key",
    )
)
"""Words of the rows' own forms, which need no look."""
NUMBER_MIN: Final = 10**8
CHARS_MIN: Final = 5
"""No shorter text holds anything personal by itself."""
NAMES_MAX: Final = 200
"""Names of one row that are looked for; a row with more is refused."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something personal in a text; `key` is equal for equal values."""

    start: int
    end: int
    kind: PiiClass
    key: str


@dataclass(slots=True)
class _Masks:
    """The placeholders of one row."""

    given: dict[tuple[PiiClass, str], str] = field(default_factory=dict)
    counts: Counter[PiiClass] = field(default_factory=Counter)

    def of(self, kind: PiiClass, key: str) -> str:
        mask = self.given.get((kind, key))
        if mask is None:
            self.counts[kind] += 1
            mask = self.given[kind, key] = f"[{kind.upper()}_{self.counts[kind]}]"
        return mask


class Scanner:
    """Applies a policy to rows. `masked` counts, by class, the rows in which something was masked."""

    def __init__(self, policy: PiiPolicy) -> None:
        self._policy: dict[PiiClass, PiiAction] = policy.model_dump()  # type: ignore[assignment]  # by class
        self._names = policy.name != "keep"
        self.masked: Counter[PiiClass] = Counter()

    def clean(self, row: Row) -> tuple[Row, int]:
        """The row with what the policy masks masked, and how many values those are.

        Raises `Unfit` for what the policy refuses, and for what cannot be masked: a key, or a number that is
        no text.
        """
        texts, others = _leaves(row)
        for other in others:
            self._refuse(other)
        looks = {text: _look(text) for text in texts}
        doubtful = {text: look for text, look in looks.items() if look}
        if not doubtful:
            return row, 0
        names = self._names_of(doubtful)
        masks = _Masks()
        looked_at = looks if names else doubtful
        masked = {text: self._mask(text, look, names, masks) for text, look in looked_at.items()}
        if not masks.given:
            return row, 0
        for kind in masks.counts:
            self.masked[kind] += 1
        return {key: _replaced(value, masked) for key, value in row.items()}, len(masks.given)

    def _refuse(self, text: str) -> None:
        for one in spans(text):
            if self._policy[one.kind] != "keep":
                raise Unfit(
                    f"pii.{one.kind}", "a key or a number looks like personal data and cannot be masked"
                )

    def _names_of(self, texts: Mapping[str, int]) -> tuple[str, ...]:
        """The names in the texts, longer ones first."""
        if not self._names:
            return ()
        found = {name for text, look in texts.items() for name in _names_in(text, look)}
        if found and self._policy["name"] == "quarantine":
            raise Unfit("pii.name", "the row names a person")
        if len(found) > NAMES_MAX:
            raise Unfit(
                "pii.names_many", f"the row names {len(found)} people; at most {NAMES_MAX} are masked"
            )
        return tuple(sorted(found, key=lambda one: (-len(one), one)))

    def _mask(self, text: str, look: int, names: Sequence[str], masks: _Masks) -> str:
        pieces: list[str] = []
        at = 0
        for one in _spans(text, look, names):
            action = self._policy[one.kind]
            if action == "keep":
                continue
            if action == "quarantine":
                raise Unfit(
                    f"pii.{one.kind}", "the row holds personal data that the policy does not let pass"
                )
            mask = masks.of(one.kind, one.key)
            pieces += [text[at : one.start], f'"{mask}"' if _is_json_number(text, one) else mask]
            at = one.end
        if not pieces:
            return text
        masked = "".join([*pieces, text[at:]])
        if any(self._policy[one.kind] != "keep" for one in spans(masked, names)):
            raise Unfit("pii.residue", "something personal is left after masking")
        return masked


def suspicious(text: str) -> bool:
    """Whether a closer look is worth it: always where `spans` or `names_in` would find something."""
    return _look(text) != 0


def _look(text: str) -> int:
    """What a text may hold, as bits; a cheap look, so that few texts need a closer one."""
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


def spans(text: str, names: Sequence[str] = ()) -> list[Span]:
    """What is personal in a text, from left to right, none overlapping another."""
    return _spans(text, _look(text), names)


def _spans(text: str, look: int, names: Sequence[str]) -> list[Span]:
    found: list[Span] = []
    if look & _ADDRESS:
        found += [Span(*match.span(), "email", match[0].casefold()) for match in EMAIL.finditer(text)]
    if look & _NUMBERS:
        for digits in _RUN.finditer(text):
            found += _numbers(text, *digits.span())
        found += [
            Span(*one.span(), "bank", one[0].replace(" ", ""))
            for one in IBAN.finditer(text)
            if _is_iban(one[0])
        ]
    if look & _ACCOUNT:
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


def names_in(text: str) -> Iterator[str]:
    """Names that the text itself says are names."""
    return _names_in(text, _look(text))


def _names_in(text: str, look: int) -> Iterator[str]:
    found: list[str] = []
    if look & _LABEL:
        found += [next(filter(None, match.groups())) for match in JSON_NAME.finditer(text)]
        found += [match[1] for match in LABELLED.finditer(text) if _is_label(text, match.start())]
    if look & _SALUTE:
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


def _is_json_number(text: str, one: Span) -> bool:
    """Whether a span is a number of a JSON text, which needs quotes once it is a placeholder."""
    before = text[max(0, one.start - 8) : one.start].rstrip()
    return text.lstrip()[:1] in ("{", "[") and before[-1:] in (":", "[", ",") and text[one.start].isdigit()


def _leaves(row: Row) -> tuple[list[str], list[str]]:
    """The texts of a row that are long enough to hold something; apart from them, keys and long numbers."""
    texts: list[str] = []
    others: list[str] = []
    pending: list[Any] = [row]
    for item in pending:  # which grows meanwhile
        if isinstance(item, str):
            if len(item) >= CHARS_MIN and item not in PLAIN:
                texts.append(item)
        elif isinstance(item, dict):
            others += [key for key in item if key not in PLAIN]
            pending += item.values()
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, int) and abs(item) >= NUMBER_MIN:
            others.append(str(item))
    return texts, others


def _replaced(value: Any, masked: Mapping[str, str]) -> Any:
    """The value with its texts replaced."""
    if isinstance(value, str):
        return masked.get(value, value)
    if isinstance(value, dict):
        return {key: _replaced(item, masked) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, masked) for item in value]
    return value
