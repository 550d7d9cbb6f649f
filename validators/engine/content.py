"""Checks that hold for any text to a person: left-overs, personal data, money, links, wording."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal
from urllib.parse import unquote

from schemas.verdicts import MessageContext
from validators.engine.findings import Report
from validators.engine.policy import ContentPolicy

Span = tuple[int, int]
Sites = Mapping[str, Sequence[str]]
"""Hosts, each with what the path of a link to it begins with; an empty text allows any."""

SSN: Final = re.compile(r"(?<![\d-])(\d{3})[-\u2010-\u2015. ](\d{2})[-\u2010-\u2015. ](\d{4})(?![\d-])")
SSN_BARE: Final = re.compile(r"(?<!\d)(\d{3})(\d{2})(\d{4})(?!\d)")
SSN_WORDS: Final = re.compile(r"\b(?:ssn|social security|soc sec)\b", re.IGNORECASE)
SSN_PUBLISHED: Final = frozenset({"078051120", "219099999"})  # printed in advertisements, nobody's number
CARD: Final = re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])")
CARD_PREFIXES: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"
    r"|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d{2}|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}"
    r"|6(?:011|5\d{2}|4[4-9]\d)\d{12}"
    r"|35(?:2[89]|[3-8]\d)\d{12}"
    r"|3(?:0[0-5]|[68]\d)\d{11}"
    r"|62\d{14,17}"
)
IBAN: Final = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
ROUTING: Final = re.compile(r"(?<!\d)\d{9}(?!\d)")
ROUTING_WORDS: Final = re.compile(r"\b(?:routing|aba|rtn)\b", re.IGNORECASE)
ACCOUNT: Final = re.compile(
    r"\b(?:(?:bank|checking|savings|deposit) (?:account|acct)|(?:account|acct)\.? ?(?:number|no\b|num\b|#))"
    r"[^\d\n]{0,20}(\d{6,17})(?!\d)",
    re.IGNORECASE,
)
AMOUNT: Final = re.compile(
    r"[$€£] ?\d|\d ?%|\d ?(?:usd|dollars|/ ?hr|/ ?hour|per hour|an hour)", re.IGNORECASE
)
NEAR_CHARS: Final = 40

URL: Final = re.compile(r"\bhttps?://[^\s<>\"]{1,2000}", re.IGNORECASE)
HOST: Final = re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,10}", re.IGNORECASE)
TRAILING: Final = ".,;:!?)]}'\u2019\u201d"

Degree = Literal["explicit", "possible"]


class ContentRules:
    """The `content.*` codes, over one text at a time."""

    def __init__(self, policy: ContentPolicy) -> None:
        self._placeholders = [re.compile(pattern) for pattern in policy.placeholders]
        self._wording: dict[Degree, re.Pattern[str]] = {
            "explicit": phrases(policy.discriminatory_explicit),
            "possible": phrases(policy.discriminatory_possible),
        }
        self._money = {
            "worker": phrases(policy.pay_disclosure.worker),
            "client": phrases(policy.pay_disclosure.client),
            None: phrases(policy.pay_disclosure.any),
        }
        suffixes = "|".join(re.escape(suffix) for suffix in policy.url_suffixes)
        self._bare_url = re.compile(
            rf"(?<![\w@./-])(?:[a-z0-9-]{{1,63}}\.){{1,6}}(?:{suffixes})(?:\.[a-z]{{2}})?(?![\w@-])(?!\.\w)(?:/[^\s<>\"]{{0,2000}})?",
            re.IGNORECASE,
        )
        self._allowlist = sites(policy.url_allowlist)

    def check(self, text: str, path: str, context: MessageContext, report: Report) -> None:
        """Note everything found in `text`, which stands at `path`."""
        for span in _distinct(match.span() for rule in self._placeholders for match in rule.finditer(text)):
            report.add("content.placeholder", path, "a template left-over stands in the text", span=span)
        self._personal(text, path, report)
        self._pay(text, path, context, report)
        self._links(text, path, context, report)
        self._discrimination(text, path, report)

    def _personal(self, text: str, path: str, report: Report) -> None:
        cards = list(card_numbers(text))
        for span in cards:
            report.add("content.pii_card", path, "a payment card number stands in the text", span=span)
        for span in social_security_numbers(text):
            report.add("content.pii_ssn", path, "a social security number stands in the text", span=span)
        for span in bank_numbers(text):
            if span not in cards:
                report.add("content.pii_bank", path, "a bank number stands in the text", span=span)

    def _pay(self, text: str, path: str, context: MessageContext, report: Report) -> None:
        reader = f"a {context.audience}" if context.audience else "anybody outside"
        last = -NEAR_CHARS
        for match in self._money[context.audience].finditer(text):
            around = text[max(0, match.start() - NEAR_CHARS) : match.end() + NEAR_CHARS]
            # Several such words around one amount disclose it once.
            if match.start() - last >= NEAR_CHARS and AMOUNT.search(around):
                message = f"an amount beside money wording that {reader} must not read"
                report.add("content.pay_disclosure", path, message, span=match.span())
                last = match.end()

    def _links(self, text: str, path: str, context: MessageContext, report: Report) -> None:
        given = self._allowlist if context.url_allowlist is None else sites(context.url_allowlist)
        listed = context.url_allowlist is not None or bool(self._allowlist)
        for span in self._urls(text):
            if not allowed(text[span[0] : span[1]], given):
                why = "is not on the allow-list" if listed else "cannot be judged: no allow-list is given"
                report.add(
                    "content.url_not_allowed",
                    path,
                    f"the link's host {why}",
                    severity=None if listed else "review",
                    span=span,
                )

    def _urls(self, text: str) -> list[Span]:
        found = [match.span() for rule in (URL, self._bare_url) for match in rule.finditer(text)]
        trimmed = ((start, start + len(text[start:end].rstrip(TRAILING))) for start, end in found)
        return _distinct(trimmed)

    def _discrimination(self, text: str, path: str, report: Report) -> None:
        explicit = [match.span() for match in self._wording["explicit"].finditer(text)]
        for span in explicit:
            report.add("content.discriminatory", path, "wording that closes the job to a group", span=span)
        for match in self._wording["possible"].finditer(text):
            if not any(_overlap(match.span(), span) for span in explicit):
                message = "wording that may close the job to a group"
                report.add("content.discriminatory", path, message, severity="review", span=match.span())


def phrases(texts: Sequence[str]) -> re.Pattern[str]:
    """Finds any of the phrases as whole words, whatever the case, with white space or hyphens between."""
    ordered = sorted(texts, key=len, reverse=True)
    joined = "|".join(r"[\s-]{1,3}".join(map(re.escape, re.split(r"[\s-]+", text))) for text in ordered)
    return re.compile(rf"(?<!\w)(?:{joined or '(?!)'})(?!\w)", re.IGNORECASE)


def social_security_numbers(text: str) -> Iterator[Span]:
    """Valid ones with separators anywhere; nine bare digits only where the words before say what they are."""
    for match in SSN.finditer(text):
        if _issued(*match.groups()):
            yield match.span()
    for match in SSN_BARE.finditer(text):
        if _issued(*match.groups()) and _said_before(SSN_WORDS, text, match.start()):
            yield match.span()


def _issued(area: str, group: str, serial: str) -> bool:
    if area + group + serial in SSN_PUBLISHED:
        return False
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def card_numbers(text: str) -> Iterator[Span]:
    """Numbers of a known scheme's prefix and length whose Luhn digit is right."""
    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if CARD_PREFIXES.fullmatch(digits) and _luhn(digits):
            yield match.span()


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


def bank_numbers(text: str) -> Iterator[Span]:
    """IBANs, routing numbers said to be such, and account numbers said to be such."""
    for match in IBAN.finditer(text):
        if _iban(match[0].replace(" ", "")):
            yield match.span()
    for match in ROUTING.finditer(text):
        if _routing(match[0]) and _said_before(ROUTING_WORDS, text, match.start()):
            yield match.span()
    for match in ACCOUNT.finditer(text):
        yield match.span(1)


def _iban(text: str) -> bool:
    turned = text[4:] + text[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def _routing(digits: str) -> bool:
    weighted = sum(int(digit) * weight for digit, weight in zip(digits, (3, 7, 1) * 3, strict=True))
    return weighted % 10 == 0 and digits != "0" * 9


def _said_before(words: re.Pattern[str], text: str, at: int) -> bool:
    return words.search(text, max(0, at - NEAR_CHARS), at) is not None


def sites(listed: Iterable[str]) -> Sites:
    """An allow-list, whose entries are hosts or URLs, in the form in which links are compared with it."""
    found: dict[str, list[str]] = {}
    for name in listed:
        host, path = _address(name.strip().removeprefix("*."))
        if host:
            found.setdefault(host, []).append(path.rstrip("/"))
    return found


def _address(url: str) -> tuple[str, str]:
    """A link's host, and the path with all that follows."""
    rest = re.sub(r"^https?://", "", url, flags=re.IGNORECASE)
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    return re.sub(r":\d{1,5}$", "", authority).rstrip(".").lower(), rest[len(authority) :]


def allowed(url: str, listed: Sites) -> bool:
    """Whether a link leads to a listed host or below. User parts and addresses in numbers never do."""
    host, path = _address(url)
    if not HOST.fullmatch(host) or host.rpartition(".")[2].isdecimal():
        return False
    labels = host.split(".")
    starts = (listed.get(".".join(labels[at:]), ()) for at in range(len(labels)))
    return any(_below(path, start) for one in starts for start in one)


def _below(path: str, start: str) -> bool:
    if not start:
        return True
    climbs = ".." in unquote(path) or "\\" in path
    return not climbs and (path == start or path.startswith((f"{start}/", f"{start}?", f"{start}#")))


def _distinct(spans: Iterable[Span]) -> list[Span]:
    """The spans in order; of those that overlap, the longest."""
    kept: list[Span] = []
    for span in sorted(set(spans), key=lambda span: (span[0], -span[1])):
        if kept and span[0] < kept[-1][1]:
            continue
        kept.append(span)
    return kept


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]
