"""The kind `email`: a draft, checked for addresses, headers, reader and words."""

import re
from collections.abc import Iterator
from typing import Final

from pydantic import JsonValue

from schemas.artifacts import EmailDraft
from schemas.base import JsonObject
from schemas.verdicts import MessageContext
from validators.engine import codes
from validators.engine.addresses import FORBIDDEN, Address
from validators.engine.content import ContentRules
from validators.engine.findings import Report, check_shape, pointer
from validators.engine.policy import Policy
from validators.engine.reader import Reader, Salutation, mend, reader_of
from validators.engine.validator import Checked, RosterNeeded, parse_context

SUBJECT_CHARS_ADVISED: Final = 78
SUBJECT_CHARS_MAX: Final = 998
"""RFC 5322, 2.1.1: lines should have at most 78 characters and must have at most 998."""

HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,77}")
OWN_HEADERS: Final = frozenset(
    {"to", "cc", "bcc", "from", "sender", "subject", "resent-to", "resent-cc", "resent-bcc"}
)
"""Set by the draft's fields alone; as headers they would add readers whom no rule looks at."""

Addressed = tuple[str, str]
"""A pointer, and the text that stands there as an address."""


class EmailValidator:
    kind: Final = "email"
    version: Final = "1.0"
    codes: Final = codes.EMAIL
    slow: Final = False

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
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
        good = [place for place in _addresses(fields) if _usable(place, report)]
        self._check_recipients(fields.get("to"), good, reader, report)
        _check_headers(fields.get("headers"), report)
        if isinstance(subject := fields["subject"], str):
            self._check_subject(subject, asked, report)
        if isinstance(body := fields["body"], str):
            self._check_body(body, asked, reader, report)
        return Checked(report.sorted(), roster=reader.roster)

    def _check_recipients(self, to: JsonValue, good: list[Addressed], reader: Reader, report: Report) -> None:
        if to == []:
            report.add("email.address_invalid", "/to", "there is no address to send to")
        if reader.named and reader.worker is None:
            message = "no worker on the roster has the recipient's id"
            report.add("email.recipient_mismatch", "/to", message, evidence=reader.evidence)
            return
        if reader.email is None:
            return
        wanted = Address.parse(reader.email)
        read = [(path, Address.parse(text)) for path, text in good if path.startswith("/to/")]
        present = any(address and address.same_as(wanted) for _, address in read)
        for path, address in read:
            if address is None or address.same_as(wanted):
                continue
            fix: JsonObject | None = {"op": "remove", "path": path} if present else None
            if not present and wanted is not None:
                fix = {"op": "replace", "path": path, "value": reader.email}
                present = True
            message = "this is not the recipient's address"
            report.add("email.recipient_mismatch", path, message, fix=fix, evidence=reader.evidence)

    def _check_subject(self, subject: str, context: MessageContext, report: Report) -> None:
        if not subject.strip():
            report.add("email.subject_missing", "/subject", "the message has no subject")
            return
        if (control := FORBIDDEN.search(subject)) is not None:
            fix: JsonObject = {
                "op": "replace",
                "path": "/subject",
                "value": " ".join(FORBIDDEN.sub(" ", subject).split()),
            }
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
        self._content.check(subject, "/subject", context, report)

    def _check_body(self, body: str, context: MessageContext, reader: Reader, report: Report) -> None:
        if not body.strip():
            report.add("email.body_missing", "/body", "the message has no text")
            return
        self._content.check(body, "/body", context, report)
        if (greeting := self._salutation.wrong(body, reader)) is not None:
            mended = mend(body, greeting, reader)
            report.add(
                "email.name_mismatch",
                "/body",
                "the greeting names somebody else than the recipient",
                span=greeting.span,
                fix=None if mended is None else {"op": "replace", "path": "/body", "value": mended},
                evidence=reader.evidence,
            )


def _addresses(fields: JsonObject) -> Iterator[Addressed]:
    for name in ("to", "cc"):
        addresses = fields.get(name)
        for index, text in enumerate(addresses if isinstance(addresses, list) else ()):
            if isinstance(text, str):
                yield pointer(name, index), text
    if isinstance(sender := fields.get("from"), str):
        yield "/from", sender


def _usable(place: Addressed, report: Report) -> bool:
    """Note what is wrong with an address: its gravest fault alone."""
    path, text = place
    address = Address.parse(text)
    if (control := FORBIDDEN.search(text)) is not None:
        message = "an address may hold no control characters and no line breaks"
        report.add("email.header_injection", path, message, span=control.span())
    elif address is not None and address.deceptive:
        report.add("email.address_homograph", path, "the address holds letters that pass for others")
    elif address is None or not address.deliverable:
        report.add("email.address_invalid", path, "this is not an address that mail can be sent to")
    else:
        return True
    return False


def _check_headers(headers: JsonValue, report: Report) -> None:
    for name, value in headers.items() if isinstance(headers, dict) else ():
        own = name.strip().lower() in OWN_HEADERS
        broken = HEADER_NAME.fullmatch(name) is None or (isinstance(value, str) and FORBIDDEN.search(value))
        if own or broken:
            path = pointer("headers", name)
            message = "a header may hold no control characters and no line breaks"
            if own:
                message = "this header is set by the draft's own fields"
            report.add("email.header_injection", path, message, fix={"op": "remove", "path": path})
