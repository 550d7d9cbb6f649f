"""What is said about validation: the request, the findings, the verdict."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import JsonObject, Model, SafeJson

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
    rows: int


class Verdict(Model):
    """All findings on one artifact, and what they amount to. `ok` is true for `accepted` alone."""

    ok: bool
    verdict: VerdictName
    findings: list[Finding]
    kind: str
    validator: ValidatorInfo
    roster: RosterInfo | None = None
    elapsed_ms: float


class ValidateRequest(Model):
    """An artifact (JSON, or the text of it) to check, with what is known around it."""

    kind: Annotated[str, Field(min_length=1)]
    artifact: SafeJson
    context: JsonObject = {}
    run_id: str | None = None


class CodeInfo(Model):
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
