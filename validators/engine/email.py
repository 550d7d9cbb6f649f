"""The kind `email`: a draft, checked for addresses, headers, reader and words."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from pydantic import JsonValue

from schemas.artifacts import EmailDraft
from schemas.base import JsonObject
from schemas.verdicts import MessageContext
from services.errors import Unavailable
from validators.backends import Roster
from validators.engine import codes
from validators.engine.addresses import FORBIDDEN, Address
from validators.engine.content import ContentRules, Reading
from validators.engine.findings import Report, check_shape, pointer
from validators.engine.policy import Policy
from validators.engine.reader import Reader, Salutation, mend, reader_of, reading_of, replacement
from validators.engine.validator import Checked, RosterNeeded, parse_context

SUBJECT_CHARS_ADVISED: Final = 78
SUBJECT_CHARS_MAX: Final = 998
LINE_OCTETS_MAX: Final = 998
"""RFC 5322, 2.1.1: lines should have at most 78 characters and must have at most 998."""

ADDRESSES_MAX: Final = 1000
"""Of one field: more than any mail system takes in one message."""

HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,77}")
OWN_HEADERS: Final = frozenset(
    {"to", "cc", "bcc", "from", "sender", "subject", "resent-to", "resent-cc", "resent-bcc"}
)
"""Set by the draft's fields alone; as headers they would add readers whom no rule looks at."""
ADDRESS_HEADERS: Final = frozenset({"reply-to", "return-path"})
LINE: Final = re.compile(r"[^\r\n]+")

Addressed = tuple[str, str]
"""A pointer, and the text that stands there as an address."""


class EmailValidator:
    kind: Final = "email"
    version: Final = "1.1"
    codes: Final = codes.EMAIL
    slow: Final = False

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._public = frozenset(domain.casefold() for domain in policy.file.email.public_mail_domains)
        self._content = ContentRules(policy.file.content)
        self._salutation = Salutation(policy)

    def artifact_schema(self) -> JsonObject:
        return EmailDraft.model_json_schema(by_alias=True)

    def context_schema(self) -> JsonObject:
        return MessageContext.model_json_schema()

    def unreadable(self, reason: str) -> Checked:
        report = Report(self._policy.severities)
        report.add("schema.invalid", "", reason)
        return Checked(report.sorted())

    def check(self, artifact: JsonValue, context: JsonObject, roster: RosterNeeded) -> Checked:
        """Raises `InvalidRequest` for a bad context, `Unavailable` if it names a worker without a roster."""
        asked = parse_context(MessageContext, context)
        report = Report(self._policy.severities)
        reader = reader_of(asked.recipient, roster)
        if not isinstance(artifact, dict):
            check_shape(EmailDraft, artifact, report)
            return Checked(report.sorted(), roster=reader.roster)
        # An absent subject or text is a code of its own; the shape is checked as if it were there.
        fields: JsonObject = {"subject": "", "body": "", **artifact}
        check_shape(EmailDraft, fields, report)
        reading = reading_of(asked, reader)
        good = {path: address for path, address in _addresses(fields, report) if address is not None}
        self._check_recipients(fields.get("to"), good, reader, report)
        looked_at = self._check_copies(good, reader, roster, report)
        self._check_headers(fields.get("headers"), reading, report)
        if isinstance(subject := fields["subject"], str):
            self._check_subject(subject, reading, report)
        if isinstance(body := fields["body"], str):
            self._check_body(body, reading, reader, report)
        return Checked(report.sorted(), roster=looked_at or reader.roster)

    def _check_recipients(
        self, to: JsonValue, good: dict[str, Address], reader: Reader, report: Report
    ) -> None:
        if to == []:
            report.add("email.address_invalid", "/to", "there is no address to send to")
        if reader.named and reader.worker is None:
            message = "no worker on the roster has the recipient's id"
            report.add("email.recipient_mismatch", "/to", message, evidence=reader.evidence)
            return
        if reader.email is None:
            return
        wanted = Address.parse(reader.email)
        read = [(path, address) for path, address in good.items() if path.startswith("/to/")]
        present = any(address.same_as(wanted) for _, address in read)
        for path, address in read:
            if address.same_as(wanted):
                continue
            fix: JsonObject | None = {"op": "remove", "path": path} if present else None
            if not present and wanted is not None:
                fix = {"op": "replace", "path": path, "value": reader.email}
                present = True
            message = "this is not the recipient's address"
            report.add("email.recipient_mismatch", path, message, fix=fix, evidence=reader.evidence)

    def _check_copies(
        self, good: dict[str, Address], reader: Reader, roster: RosterNeeded, report: Report
    ) -> Roster | None:
        """Who reads along: never another worker. The roster that was looked at, if one was.

        A desk or a client may; an address where anybody may have one, and nobody is known, is for review.
        """
        copies = [(path, address) for path, address in good.items() if path.startswith("/cc/")]
        if not copies or reader.email is None:
            return None
        snapshot = reader.roster or _roster_if_any(roster)
        wanted = Address.parse(reader.email)
        for path, address in copies:
            if address.same_as(wanted):
                continue
            other = snapshot.find_email(f"{address.local}@{address.domain}") if snapshot else None
            fix: JsonObject = {"op": "remove", "path": path}
            if other is not None:
                evidence: JsonObject = {"row": other.row}
                message = "this is another worker's address"
                report.add("email.recipient_mismatch", path, message, fix=fix, evidence=evidence)
            elif address.domain.casefold() in self._public:
                message = "this is a private address, and not the recipient's"
                report.add("email.recipient_mismatch", path, message, severity="review", fix=fix)
        return snapshot

    def _check_headers(self, headers: JsonValue, reading: Reading, report: Report) -> None:
        for name, value in headers.items() if isinstance(headers, dict) else ():
            path = pointer("headers", name)
            own = name.strip().lower() in OWN_HEADERS
            broken = HEADER_NAME.fullmatch(name) is None or (
                isinstance(value, str) and FORBIDDEN.search(value)
            )
            if own or broken:
                message = "a header may hold no control characters and no line breaks"
                if own:
                    message = "this header is set by the draft's own fields"
                report.add("email.header_injection", path, message, fix={"op": "remove", "path": path})
            elif isinstance(value, str):
                if name.lower() in ADDRESS_HEADERS:
                    _usable(path, value, report)
                if len(name) + 2 + len(value.encode(errors="replace")) > LINE_OCTETS_MAX:
                    message = f"the header is longer than {LINE_OCTETS_MAX} octets"
                    report.add("email.line_too_long", path, message)
                self._content.check(value, path, reading, report, links=False)

    def _check_subject(self, subject: str, reading: Reading, report: Report) -> None:
        if not subject.strip():
            report.add("email.subject_missing", "/subject", "the message has no subject")
            return
        if (control := FORBIDDEN.search(subject)) is not None:
            mended = " ".join(FORBIDDEN.sub(" ", subject).split())
            fix = replacement("/subject", mended) if mended else None
            message = "a header may hold no control characters and no line breaks"
            report.add("email.header_injection", "/subject", message, span=control.span(), fix=fix)
        if len(subject) > SUBJECT_CHARS_ADVISED:
            over = len(subject) > SUBJECT_CHARS_MAX
            limit = SUBJECT_CHARS_MAX if over else SUBJECT_CHARS_ADVISED
            report.add(
                "email.subject_too_long",
                "/subject",
                f"the subject has {len(subject)} characters of {limit} {'allowed' if over else 'advised'}",
                severity=None if over else "warning",
                span=(limit, len(subject)),
            )
        self._content.check(subject, "/subject", reading, report)

    def _check_body(self, body: str, reading: Reading, reader: Reader, report: Report) -> None:
        if not body.strip():
            report.add("email.body_missing", "/body", "the message has no text")
            return
        self._content.check(body, "/body", reading, report)
        if (long := _long_line(body)) is not None:
            message = f"a line is longer than {LINE_OCTETS_MAX} octets: break it, or send it encoded"
            report.add("email.line_too_long", "/body", message, span=long)
        if (greeting := self._salutation.wrong(body, reader)) is not None:
            mended = mend(body, greeting, reader)
            report.add(
                "email.name_mismatch",
                "/body",
                "the greeting names somebody else than the recipient",
                span=greeting.span,
                fix=None if mended is None else replacement("/body", mended),
                evidence=reader.evidence,
            )


def _long_line(body: str) -> tuple[int, int] | None:
    if len(body.encode(errors="replace")) <= LINE_OCTETS_MAX:
        return None
    for match in LINE.finditer(body):
        if len(match[0].encode(errors="replace")) > LINE_OCTETS_MAX:
            return match.span()
    return None


def _roster_if_any(roster: RosterNeeded) -> Roster | None:
    try:
        return roster()
    except Unavailable:
        return None


def _addresses(fields: JsonObject, report: Report) -> Iterator[tuple[str, Address | None]]:
    for name in ("to", "cc"):
        addresses = fields.get(name)
        listed = addresses if isinstance(addresses, list) else []
        if len(listed) > ADDRESSES_MAX:
            message = f"there are {len(listed)} addresses; at most {ADDRESSES_MAX} are looked at"
            report.add("email.address_invalid", pointer(name), message)
        for index, text in enumerate(islice(listed, ADDRESSES_MAX)):
            if isinstance(text, str):
                path = pointer(name, index)
                yield path, _usable(path, text, report)
    if isinstance(sender := fields.get("from"), str):
        yield "/from", _usable("/from", sender, report)


def _usable(path: str, text: str, report: Report) -> Address | None:
    """The address, or None with a note of what is wrong with it: its gravest fault alone."""
    address = Address.parse(text)
    if (control := FORBIDDEN.search(text)) is not None:
        message = "an address may hold no control characters and no line breaks"
        report.add("email.header_injection", path, message, span=control.span())
    elif address is not None and address.deceptive:
        report.add("email.address_homograph", path, "the address holds letters that pass for others")
    elif address is None or not address.deliverable:
        report.add("email.address_invalid", path, "this is not an address that mail can be sent to")
    else:
        return address
    return None
