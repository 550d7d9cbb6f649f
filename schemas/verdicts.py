"""What is said about validation: the request with its context, the findings, the verdict."""

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictInt

from schemas.base import JsonObject, Measure, Model, RunId, SafeJson, Tally

Severity = Literal["error", "review", "warning", "info"]
VerdictName = Literal["accepted", "partially_accepted", "rejected", "needs_human_review"]


class Finding(Model):
    """One thing found. Callers branch on `code`; `message` is for people and masks personal data.

    `path` is an RFC 6901 pointer into the artifact; `span` is `[start, end)` in characters of the text there.
    """

    code: str
    severity: Severity
    path: str
    span: tuple[int, int] | None = None
    message: str
    fix: JsonObject | None = None
    evidence: JsonObject | None = None


class ValidatorInfo(Model):
    """Which rules spoke. `policy_version` names the rule set, so that a verdict can be repeated."""

    name: str
    version: str
    policy_version: str


class RosterInfo(Model):
    """Which roster was looked at."""

    sha256: str
    as_of: str
    rows: Tally


class Verdict(Model):
    """All findings on one artifact, and what they amount to. `ok` is true for `accepted` alone."""

    ok: StrictBool
    verdict: VerdictName
    findings: list[Finding]
    kind: str
    validator: ValidatorInfo
    roster: RosterInfo | None = None
    elapsed_ms: Measure


class ValidateRequest(Model):
    """An artifact (JSON, or the text of it) to check, with what is known around it."""

    kind: Annotated[str, Field(min_length=1)]
    artifact: SafeJson
    context: JsonObject = {}
    run_id: RunId | None = None


def _day_or_time(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError:
        try:
            if datetime.fromisoformat(text).utcoffset() is not None:
                return text
        except ValueError:
            pass
        raise ValueError(
            "this is neither an ISO 8601 day (2026-11-02) nor a time with an offset (2026-11-02T06:00:00Z)"
        ) from None
    return text


AsOf = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_day_or_time)]
"""The day, or the moment, of which a roster tells."""


class FillOrder(Model):
    """The order that a proposal is checked against. `start` and `end` are ISO 8601 with the site's offset.

    They are text here because a time without an offset is a finding, not a malformed request.
    """

    order_id: str
    client_id: str
    role: str
    city: str
    state: str
    count: Annotated[StrictInt, Field(ge=1)]
    start: str
    end: str
    required_certs: Annotated[list[str], Field(max_length=100)] = []
    age_min: Annotated[StrictInt, Field(ge=0, le=150)] | None = None


class FillContext(Model):
    """What a `fill` is checked against. `as_of` only names the roster's date."""

    order: FillOrder
    as_of: AsOf | None = None


class Recipient(Model):
    """Whom a message is meant for: a worker of the roster, or a name and an address."""

    worker_id: str | None = None
    name: str | None = None
    email: str | None = None


class MessageContext(Model):
    """What a message is checked against."""

    recipient: Recipient | None = None
    url_allowlist: Annotated[list[str], Field(max_length=10_000)] | None = None
    audience: Literal["worker", "client"] | None = None


class SmsContext(MessageContext):
    """`first_contact` asks for the way to opt out; `opted_out` forbids the message."""

    segments_max: Annotated[StrictInt, Field(ge=1)] = 1
    opted_out: StrictBool | None = None
    first_contact: StrictBool | None = None


class SchemaContext(Model):
    """The JSON Schema (draft 4 to 2020-12) of the `json_schema` kind."""

    schema_: Annotated[JsonObject | bool, Field(alias="schema")]


class CodeInfo(Model):
    """A code, how much it weighs under the policy in force, and what it means."""

    code: str
    severity: Severity
    meaning: str


class ValidatorDescription(Model):
    """A kind of artifact: what it looks like, and every code that can be found on it."""

    kind: str
    version: str
    artifact_schema: JsonObject
    context_schema: JsonObject
    codes: list[CodeInfo]


class ValidatorList(Model):
    validators: list[ValidatorDescription]
    policy_version: str
    roster: RosterInfo | None
