"""Finds numbers that identify a person or open an account: social security, taxpayer, card and bank numbers.

A number counts by its shape and its check digits. Shapes that order numbers and telephone numbers share count
only where the nearest label says what they are.
"""

import re
from collections.abc import Iterator
from itertools import chain
from typing import Final

from stdnum import iban
from stdnum.us import itin, rtn, ssn

from validators.engine.view import Span

NEAR_CHARS: Final = 40
"""How far a label may stand from its number."""

_SSN_LABEL: Final = (
    r"ssn|social security|soc\.? ?sec|social (?:number|no\b|is\b|#)|ss ?#|s\.s\.n|itin|"
    r"tax(?:payer)? id(?:entification)?|numero de seguro social|seguro social"
)
_BANK_LABEL: Final = r"routing|aba|rtn|account|acct|iban"
_ROUTING_LABEL: Final = r"routing|aba|rtn|transit"
_OTHER_LABEL: Final = (
    r"order|job|ticket|invoice|confirmation|ref|reference|po|phone|call|text|tel|fax|cell|mobile|tracking|"
    r"badge|employee|worker|requisition|req|case|claim|policy|shipment|sku|serial|part"
)

SSN: Final = re.compile(r"(?<!\d)(?<!\d-)(\d{3})(?P<sep>-| - |[. /_\x1a])(\d{2})(?P=sep)(\d{4})(?!\d)(?!-\d)")
NINE_DIGITS: Final = re.compile(r"(?<![\d.,-])\d{9}(?![\d-])(?![.,]\d)")
SSN_LABEL: Final = re.compile(rf"\b(?:{_SSN_LABEL})", re.IGNORECASE)
ROUTING_LABEL: Final = re.compile(rf"\b(?:{_ROUTING_LABEL})\b", re.IGNORECASE)
SSN_AFTER: Final = re.compile(
    r"\W{0,3}(?:is (?:my|your|his|her|their|the) )?(?:ssn|social security|social\b)", re.IGNORECASE
)
ROUTING_AFTER: Final = re.compile(r"\W{0,3}(?:is (?:my|your|our|the) )?(?:routing|aba|rtn)\b", re.IGNORECASE)
NOT_SSN: Final = re.compile(rf"\b(?:{_OTHER_LABEL}|{_BANK_LABEL})\b", re.IGNORECASE)
NOT_ROUTING: Final = re.compile(rf"\b(?:{_OTHER_LABEL}|{_SSN_LABEL})\b", re.IGNORECASE)

CARD_GROUPS: Final = re.compile(
    r"(?<!\d)(?<!\d-)(?<!\d\.)(?:"
    r"\d{4}(?P<a>[ .-]{1,2})\d{4}(?P=a)\d{4}(?P=a)\d{1,7}"
    r"|\d{4}(?P<b>[ .-]{1,2})\d{6}(?P=b)\d{4,5}"
    r")(?!\d)(?!-\d)"
)
"""As printed on cards: four times four, or four, six and the rest."""
CARD_RUN: Final = re.compile(r"(?<!\d)(?<!\d-)\d(?:[ -]?\d){12,18}(?!\d)(?!-\d)")
CARD_PREFIXES: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"
    r"|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d{2}|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}"
    r"|6(?:011|5\d{2}|4[4-9]\d)\d{12}"
    r"|35(?:2[89]|[3-8]\d)\d{12}"
    r"|3(?:0[0-5]|[68]\d)\d{11}"
    r"|62\d{14,17}"
    r"|(?:50|5[6-9]|6\d)\d{14}"
)
_DOUBLED: Final = tuple(sum(divmod(2 * digit, 10)) for digit in range(10))

IBAN: Final = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
ACCOUNT: Final = re.compile(
    r"\b(?:(?:bank|checking|savings|deposit) (?:account|acct)|(?:account|acct)\.? ?(?:number|no\b|num\b|#))"
    r"(?P<between>[^\d\n]{0,20})(?P<number>\d(?:[ -]?\d){5,16})(?!\d)",
    re.IGNORECASE,
)
ACCOUNT_PLAIN: Final = re.compile(r"\b(?:account|acct)\W{1,3}(?P<number>\d{6,17})(?!\d)", re.IGNORECASE)
BANK_NEAR: Final = re.compile(r"\b(?:routing|aba|bank|direct deposit|checking|savings)\b", re.IGNORECASE)
BETWEEN_OTHER: Final = re.compile(rf"\b(?:{_OTHER_LABEL})\b", re.IGNORECASE)
DIGIT_RUN: Final = re.compile(r"\d{2}")


def has_digits(text: str) -> bool:
    """Whether the text can hold any of these numbers at all."""
    return DIGIT_RUN.search(text) is not None


def holds_personal(text: str) -> bool:
    """Whether any of these numbers stands in the text, so that no fix may repeat it."""
    if not has_digits(text):
        return False
    found = (social_security_numbers(text), card_numbers(text), bank_numbers(text))
    return next(chain.from_iterable(found), None) is not None


def social_security_numbers(text: str) -> Iterator[Span]:
    """With separators, anywhere; nine bare digits, or as part of an id, only where a label says so."""
    for match in SSN.finditer(text):
        part_of_id = (
            match.start() > 1 and text[match.start() - 1] == "-" and text[match.start() - 2].isalnum()
        )
        if _personal("".join(match.group(1, 3, 4))) and (not part_of_id or _social(text, match.span())):
            yield match.span()
    for match in NINE_DIGITS.finditer(text):
        if _social(text, match.span()) and _personal(match[0]):
            yield match.span()


def _personal(digits: str) -> bool:
    """Whether the number can have been issued: published samples and unused ranges have not."""
    if digits[0] == "9":
        return bool(itin.is_valid(digits))
    return bool(ssn.is_valid(digits))


def _social(text: str, span: Span) -> bool:
    return _labelled(text, span, SSN_LABEL, NOT_SSN, SSN_AFTER)


def _labelled(
    text: str, span: Span, label: re.Pattern[str], other: re.Pattern[str], after: re.Pattern[str]
) -> bool:
    """Whether the nearest label before the number is `label`, or one follows at once."""
    if after.match(text, span[1]) is not None:
        return True
    before = text[max(0, span[0] - NEAR_CHARS) : span[0]]
    ends = [match.end() for match in label.finditer(before)]
    return bool(ends) and other.search(before, ends[-1]) is None


def card_numbers(text: str) -> Iterator[Span]:
    """Numbers of a known scheme's prefix and length whose Luhn digit is right."""
    for shape in (CARD_GROUPS, CARD_RUN):
        for match in shape.finditer(text):
            digits = "".join(char for char in match[0] if char.isdecimal())
            if CARD_PREFIXES.fullmatch(digits) and _luhn(digits):
                yield match.span()


def _luhn(digits: str) -> bool:
    doubled = sum(_DOUBLED[int(digit)] for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def bank_numbers(text: str) -> Iterator[Span]:
    """IBANs, routing numbers said to be such, and account numbers said to be such."""
    for match in IBAN.finditer(text):
        if iban.is_valid(match[0], check_country=False):
            yield match.span()
    for match in NINE_DIGITS.finditer(text):
        if _labelled(text, match.span(), ROUTING_LABEL, NOT_ROUTING, ROUTING_AFTER) and rtn.is_valid(
            match[0]
        ):
            yield match.span()
    for match in ACCOUNT.finditer(text):
        if BETWEEN_OTHER.search(match["between"]) is None:
            yield match.span("number")
    for match in ACCOUNT_PLAIN.finditer(text):
        around = text[max(0, match.start() - 2 * NEAR_CHARS) : match.end() + 2 * NEAR_CHARS]
        if BANK_NEAR.search(around):
            yield match.span("number")
