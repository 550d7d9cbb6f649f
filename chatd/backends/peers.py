"""The daemons that the repair loop works with: validators for verdicts, vectord for notes."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.base import JsonObject
from schemas.runs import RetrievedText
from schemas.vectors import RetrievedHit, RetrieveRequest
from schemas.verdicts import ValidateRequest, ValidatorList, Verdict
from services.clients import ValidatorsClient, VectordClient
from services.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    PlatformError,
    TooLarge,
    Unavailable,
    UpstreamError,
)

KINDS_TTL_S: Final = 5.0


class Judge:
    """Knows what an artifact of a kind looks like, and says what is wrong with one.

    No verdict is no permission: whatever keeps validators from giving one, its caller gets `Unavailable`.
    """

    def __init__(self, client: ValidatorsClient) -> None:
        self._client = client
        self._schemas: Mapping[str, JsonObject] = {}
        self._schemas_until = 0.0

    async def schema(self, kind: str, context: JsonObject) -> JsonObject:
        """The JSON Schema of a kind. Raises `InvalidRequest` naming the kinds that there are."""
        schemas = await self._known()
        if kind not in schemas:
            raise InvalidRequest(
                f"there is no validator of kind {kind!r}; there are: {', '.join(schemas)}",
                param="validate.kind",
            )
        if kind != "json_schema":
            return schemas[kind]
        own = context.get("schema")  # this kind's artifacts look as the caller says
        if not isinstance(own, dict):
            raise InvalidRequest(
                "the kind json_schema needs a JSON Schema in `validate.context.schema`",
                param="validate.context.schema",
            )
        return own

    async def _known(self) -> Mapping[str, JsonObject]:
        if time.monotonic() >= self._schemas_until:
            try:
                listed: ValidatorList = await self._client.kinds()
            except PlatformError as error:
                raise _no_verdict(error) from error
            self._schemas = {one.kind: one.artifact_schema for one in listed.validators}
            self._schemas_until = time.monotonic() + KINDS_TTL_S
        return self._schemas

    async def judge(self, request: ValidateRequest) -> Verdict:
        """The verdict on one artifact. A refusal names the field as it stands in our caller's request.

        Raises `UpstreamError` for an artifact too large to be judged, which is the model's doing.
        """
        try:
            verdict = await self._client.validate(request)
        except InvalidRequest as error:
            if error.param is not None:
                error.param = f"validate.{error.param}"
            raise
        except TooLarge as error:
            if error.param is not None and error.param.startswith("context"):
                error.param = f"validate.{error.param}"
                raise
            raise UpstreamError(
                f"the model's answer cannot be judged: {error.message}", code="answer_too_large"
            ) from error
        except PlatformError as error:
            raise _no_verdict(error) from error
        if not _holds_together(verdict, request.kind):
            raise _no_verdict(UpstreamError("its verdict contradicts itself"))
        return verdict


def _holds_together(verdict: Verdict, kind: str) -> bool:
    """Whether a verdict is one on what was asked, and agrees with itself on whether it accepts."""
    severities = {finding.severity for finding in verdict.findings}
    accepted = verdict.verdict == "accepted"
    return (
        verdict.kind == kind
        and verdict.ok is accepted
        and not (accepted and severities & {"error", "review"})
        and not (verdict.verdict == "needs_human_review" and "error" in severities)
    )


def _no_verdict(error: PlatformError) -> Unavailable:
    code = error.code if isinstance(error, Unavailable) else "validators_failed"
    said = error.message if "validators" in error.message else f"validators gives no verdict: {error.message}"
    return Unavailable(said, code=code, retry_after_s=error.retry_after_s, summary=error.summary)


@dataclass(frozen=True, slots=True)
class Note:
    """A text from earlier work, and the worker whom its payload says it is about."""

    text: RetrievedText
    worker_id: str | None


class Notes:
    """Finds texts from earlier work."""

    def __init__(self, client: VectordClient) -> None:
        self._client = client

    async def find(self, request: RetrieveRequest) -> list[Note]:
        """The texts that the role gate lets through, best first. Hits without a text are left out.

        A refusal names the field as it stands in our caller's request.
        """
        try:
            answer = await self._client.retrieve(request)
        except (InvalidRequest, Forbidden, NotFound) as error:
            if error.param is not None:
                error.param = f"retrieve.{error.param}"
            raise
        return [_note(hit, hit.text) for hit in answer.hits if hit.text]


def _note(hit: RetrievedHit, text: str) -> Note:
    worker_id = hit.payload.get("worker_id")
    return Note(
        RetrievedText(
            collection=hit.collection,
            id=hit.id,
            role=hit.role,
            score=hit.score,
            text=text,
            text_sha256=hashlib.sha256(text.encode()).hexdigest(),
        ),
        worker_id if isinstance(worker_id, str) else None,
    )
