"""Checks that hold for any text to a person: left-overs, personal data, money, links, wording."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from schemas.base import JsonObject
from schemas.verdicts import Severity
from validators.engine.findings import Report
from validators.engine.links import LinkRules, Reason
from validators.engine.personal import bank_numbers, card_numbers, has_digits, social_security_numbers
from validators.engine.policy import ContentPolicy
from validators.engine.view import Span, View
from validators.engine.wording import LeftOvers, Money, Phrases, distinct, overlap

FINDINGS_MAX: Final = 100
"""Of one code on one text: whoever reads a hundred needs no more, and hostile text would bring thousands."""

NUMBERS_MAX: Final = 500
"""Of one sort in one text, before those that overlap are dropped."""

Audience = Literal["worker", "client"]

WHY: Final[dict[Reason, str]] = {
    "user_info": "hides its host behind a user name",
    "ip_address": "names an address in numbers, not a host",
    "punycode": "names a host in letters that pass for others",
    "shortener": "leads through a shortener, so nobody sees where",
    "no_domain": "names no public host",
    "not_listed": "leads to a host that is not on the allow-list",
    "no_allowlist": "cannot be judged: no allow-list is given",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """For whom a text is, and the hosts that links in it may lead to (None: the policy's)."""

    audience: Audience | None = None
    url_allowlist: tuple[str, ...] | None = None


class ContentRules:
    """The `content.*` codes, over one text at a time."""

    def __init__(self, policy: ContentPolicy) -> None:
        self._left_overs = LeftOvers(policy.placeholders, policy.placeholder_exceptions)
        self._explicit = Phrases(policy.discriminatory_explicit, policy.discriminatory_explicit_patterns)
        self._possible = Phrases(policy.discriminatory_possible, policy.discriminatory_possible_patterns)
        self._money = {
            "worker": Money(policy.pay_disclosure.worker),
            "client": Money(policy.pay_disclosure.client),
            None: Money(policy.pay_disclosure.any),
        }
        self._links = LinkRules(
            allowlist=policy.url_allowlist,
            shorteners=policy.url_shorteners,
            bare_suffixes=policy.url_suffixes,
        )
        self._listed = bool(policy.url_allowlist)

    def check(self, text: str, path: str, reading: Reading, report: Report, *, links: bool = True) -> None:
        """Note everything found in `text`, which stands at `path`."""
        view = View(text)
        here = _Text(path, view, report)
        message = "a template left-over stands in the text"
        here.note("content.placeholder", message, self._left_overs.spans(view))
        if has_digits(view.text):
            _note_personal(here)
        reader = f"a {reading.audience}" if reading.audience else "anybody outside"
        message = f"an amount beside money wording that {reader} must not read"
        here.note("content.pay_disclosure", message, self._money[reading.audience].spans(view))
        if links:
            self._note_links(here, reading)
        self._note_discrimination(here)

    def _note_links(self, here: "_Text", reading: Reading) -> None:
        listed = self._listed or reading.url_allowlist is not None
        for link, reason, domain in islice(self._links.wrong(here.view, reading.url_allowlist), FINDINGS_MAX):
            evidence: JsonObject = {"reason": reason, "registered_domain": domain}
            here.report.add(
                "content.url_not_allowed",
                here.path,
                f"the link {WHY[reason]}",
                severity=None if listed else "review",
                span=link.span,
                evidence=evidence,
            )

    def _note_discrimination(self, here: "_Text") -> None:
        explicit = self._explicit.spans(here.view)
        code, message = "content.discriminatory", "wording that closes the job to a group"
        here.note(code, message, explicit)
        known = explicit[:FINDINGS_MAX]
        found = self._possible.spans(here.view)
        possible = (span for span in found if not any(overlap(span, other) for other in known))
        here.note(code, "wording that may close the job to a group", possible, "review")


@dataclass(frozen=True, slots=True)
class _Text:
    """One text under check: where it stands, as it is read, and where findings on it go."""

    path: str
    view: View
    report: Report

    def note(self, code: str, message: str, spans: Iterable[Span], severity: Severity | None = None) -> None:
        for span in islice(spans, FINDINGS_MAX):
            self.report.add(code, self.path, message, severity=severity, span=self.view.span(*span))


def _note_personal(here: _Text) -> None:
    text = here.view.text
    cards = distinct(islice(card_numbers(text), NUMBERS_MAX))
    here.note("content.pii_card", "a payment card number stands in the text", cards)
    social = distinct(islice(social_security_numbers(text), NUMBERS_MAX))
    here.note("content.pii_ssn", "a social security or taxpayer number stands in the text", social)
    taken = [*cards[:FINDINGS_MAX], *social[:FINDINGS_MAX]]
    numbers = distinct(islice(bank_numbers(text), NUMBERS_MAX))
    banks = (span for span in numbers if not any(overlap(span, t) for t in taken))
    here.note("content.pii_bank", "a bank number stands in the text", banks)
