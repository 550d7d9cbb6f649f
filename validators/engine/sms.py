"""The kind `sms`: a text message to a worker, checked for number, length, reader and words."""

import re
from typing import Final

import phonenumbers
from pydantic import JsonValue

from schemas.artifacts import SmsDraft
from schemas.base import JsonObject
from schemas.verdicts import SmsContext
from validators.engine import codes, gsm
from validators.engine.content import ContentRules, Reading
from validators.engine.findings import Report, check_shape
from validators.engine.greeting import Greeting
from validators.engine.policy import Policy
from validators.engine.reader import Reader, Salutation, mend, reader_of, reading_of, replacement
from validators.engine.text import fold
from validators.engine.validator import Checked, RosterNeeded, parse_context
from validators.engine.view import View

NUMBER: Final = re.compile(r"\+?[0-9 ().\-/]{3,40}")
BODY: Final = "/body"
NOT_WORD: Final = re.compile(r"[\W_]+")


class SmsValidator:
    kind: Final = "sms"
    version: Final = "1.1"
    codes: Final = codes.SMS
    slow: Final = False

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._limits = policy.file.sms
        self._content = ContentRules(policy.file.content)
        self._salutation = Salutation(policy)
        self._senders = [f" {fold(name)} " for name in policy.file.sms.sender_names]
        self._opt_out = [f" {fold(wording)} " for wording in policy.file.sms.opt_out_wording]

    def artifact_schema(self) -> JsonObject:
        return SmsDraft.model_json_schema()

    def context_schema(self) -> JsonObject:
        return SmsContext.model_json_schema()

    def unreadable(self, reason: str) -> Checked:
        report = Report(self._policy.severities)
        report.add("schema.invalid", "", reason)
        return Checked(report.sorted())

    def check(self, artifact: JsonValue, context: JsonObject, roster: RosterNeeded) -> Checked:
        """Raises `InvalidRequest` for a bad context, `Unavailable` if it names a worker without a roster."""
        asked = parse_context(SmsContext, context)
        report = Report(self._policy.severities)
        reader = reader_of(asked.recipient, roster)
        fields = artifact if isinstance(artifact, dict) else {}
        # An absent text is a code of its own; the shape is checked as if it were there.
        check_shape(SmsDraft, {"body": "", **fields} if isinstance(artifact, dict) else artifact, report)
        if isinstance(to := fields.get("to"), str):
            self._check_number(to, reader, report)
        if asked.opted_out:
            path = "/to" if isinstance(artifact, dict) else ""
            report.add("sms.opted_out", path, "the recipient has opted out of messages")
        if isinstance(artifact, dict) and isinstance(body := fields.get("body", ""), str):
            self._check_body(body, asked, reading_of(asked, reader), reader, report)
        return Checked(report.sorted(), roster=reader.roster)

    def _check_number(self, to: str, reader: Reader, report: Report) -> None:
        known = self._e164(reader.worker.phone) if reader.worker else None
        fix: JsonObject | None = None if known is None else {"op": "replace", "path": "/to", "value": known}
        number = self._e164(to)
        if number is None:
            report.add(
                "sms.number_invalid", "/to", "this is not a telephone number that can be texted", fix=fix
            )
        elif reader.named and number != known:
            message = "this is not the recipient's number"
            if reader.worker is None:
                message = "no worker on the roster has the recipient's id"
            elif known is None:
                message = "the roster has no usable number of the recipient"
            evidence: JsonObject = {"row": reader.worker.row if reader.worker else None}
            report.add("sms.recipient_mismatch", "/to", message, fix=fix, evidence=evidence)

    def _e164(self, text: str) -> str | None:
        if not NUMBER.fullmatch(text.strip()):
            return None
        try:
            number = phonenumbers.parse(text, self._limits.region)
        except phonenumbers.NumberParseException:
            return None
        if not phonenumbers.is_valid_number(number):
            return None
        return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))

    def _check_body(
        self, body: str, context: SmsContext, reading: Reading, reader: Reader, report: Report
    ) -> None:
        if not body.strip():
            report.add("sms.body_missing", BODY, "the message has no text")
            return
        self._content.check(body, BODY, reading, report)
        greeting = self._salutation.wrong(body, reader)
        lacks_opt_out = bool(context.first_contact) and not _says_any(self._opt_out, body)
        cut = gsm.segments(body, self._limits)
        too_long = cut.count > context.segments_max
        fix = self._fix(body, greeting, reader, lacks_opt_out, context.segments_max)
        if greeting is not None:
            message = "the greeting names somebody else than the recipient"
            report.add(
                "sms.name_mismatch", BODY, message, span=greeting.span, fix=fix, evidence=reader.evidence
            )
        if lacks_opt_out:
            message = "a first message has to say how to opt out, such as: Reply STOP to opt out"
            report.add("sms.opt_out_missing", BODY, message, fix=fix)
        if context.first_contact and self._senders and not _says_any(self._senders, body):
            report.add("sms.sender_missing", BODY, "a first message has to name its sender")
        if too_long:
            report.add(
                "sms.too_long",
                BODY,
                f"the text takes {cut.count} {cut.encoding} segments of {context.segments_max} allowed",
                span=(cut.starts[context.segments_max], len(body)),
                fix=fix,
                evidence={
                    "encoding": cut.encoding,
                    "segments": cut.count,
                    "units": cut.units,
                    "segments_max": context.segments_max,
                },
            )

    def _fix(
        self, body: str, greeting: Greeting | None, reader: Reader, lacks_opt_out: bool, segments_max: int
    ) -> JsonObject | None:
        """The whole text mended, the same for every finding on it; None where that is too long."""
        mended = body
        if greeting is not None:
            if (regreeted := mend(body, greeting, reader)) is None:
                return None
            mended = regreeted
        if lacks_opt_out:
            mended = mended.rstrip() + self._limits.opt_out_suggestion
        if gsm.segments(mended, self._limits).count > segments_max:
            mended = gsm.plain(mended)
        if gsm.segments(mended, self._limits).count > segments_max:
            return None
        return replacement(BODY, mended)


def _says_any(wordings: list[str], body: str) -> bool:
    seen = View(body).text.lower().replace("'", "")
    plain = NOT_WORD.sub(" ", f" {seen} ")
    return any(wording in plain for wording in wordings)
