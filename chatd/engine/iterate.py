"""Generate, validate, repair: until a validator accepts the artifact, nothing improves, or the budget ends.

Every attempt is one model call with one run record, which carries the verdict; all are of one episode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from chatd.backends import UNKNOWN_USAGE
from chatd.backends.peers import Judge, Notes
from chatd.engine import artifacts, prompts
from chatd.engine.calls import new_origin
from chatd.engine.dispatch import Dispatcher
from chatd.engine.metrics import Metrics
from schemas.base import JsonObject
from schemas.canonical import content_id
from schemas.chat import ChatMessage, ChatRequest, JsonSchemaFormat, JsonSchemaSpec
from schemas.iterate import IterateAttempt, IterateRequest, IterateResponse, Outcome, RetrieveSpec
from schemas.runs import RetrievedText, Task, Usage
from schemas.vectors import RetrieveRequest
from schemas.verdicts import ValidateRequest, Verdict, VerdictName
from services.errors import InvalidRequest, PlatformError

RANK: Final[dict[VerdictName, int]] = {
    "accepted": 0,
    "needs_human_review": 1,
    "partially_accepted": 2,
    "rejected": 3,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Tokens of one attempt, and characters of all notes put before the model."""

    tokens_max: int
    notes_chars_max: int


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one attempt. Without a verdict there is an error: the provider failed."""

    model: str
    run_id: str
    artifact: JsonValue = None
    usage: Usage = UNKNOWN_USAGE
    verdict: Verdict | None = None
    error: PlatformError | None = None

    @property
    def ok(self) -> bool:
        return self.verdict is not None and self.verdict.ok

    def same_as(self, other: "Tried") -> bool:
        """Whether nothing has moved: the same artifact, or the same findings to the letter."""
        if self.verdict is None or other.verdict is None:
            return False
        if _identity(self.artifact) == _identity(other.artifact):
            return True
        return self.verdict.findings == other.verdict.findings

    def public(self) -> IterateAttempt:
        return IterateAttempt(
            model=self.model,
            artifact=self.artifact,
            findings=self.verdict.findings if self.verdict else [],
            usage=self.usage,
            run_id=self.run_id,
        )


class Plan:
    """Whose turn it is. The attempts are shared out evenly, the earlier models get what is left over.

    A model that makes no progress hands its unused attempts on to the next.
    """

    def __init__(self, models: Sequence[str], attempts_max: int) -> None:
        share, extra = divmod(attempts_max, len(models))
        self._turns = [(model, share + (index < extra)) for index, model in enumerate(models)]
        self._left = 0
        self._model: str | None = None

    def next(self, *, stuck: bool) -> str | None:
        """The model of the next attempt, None when there is none. `stuck`: the last one did not help."""
        if self._model is None or stuck or self._left == 0:
            if not self._turns:
                return None
            self._model, share = self._turns.pop(0)
            self._left += share
        self._left -= 1
        return self._model


@dataclass(frozen=True, slots=True)
class _Session:
    """What stays the same over all attempts."""

    request: IterateRequest
    episode_id: str
    task: Task
    schema: JsonObject
    notes: tuple[RetrievedText, ...]


class Refiner:
    def __init__(
        self, dispatcher: Dispatcher, judge: Judge, notes: Notes, metrics: Metrics, limits: Limits
    ) -> None:
        self._dispatcher = dispatcher
        self._judge = judge
        self._notes = notes
        self._metrics = metrics
        self._limits = limits

    async def run(self, request: IterateRequest, episode_id: str) -> IterateResponse:
        """Work on one artifact.

        Raises `Unavailable` when validators or vectord is down, and the provider's error when not a
        single attempt came to an answer.
        """
        session = await self._prepare(request, episode_id)
        plan = Plan(request.candidates, request.attempts_max)
        tried: list[Tried] = []
        stuck = False
        while (model := plan.next(stuck=stuck)) is not None:
            last = _last_answered(tried)
            tried.append(await self._attempt(session, model, number=len(tried) + 1, last=last))
            if tried[-1].ok:
                break
            stuck = tried[-1].error is not None or (
                last is not None and last.model == model and tried[-1].same_as(last)
            )
        return self._answer(session, tried)

    async def _prepare(self, request: IterateRequest, episode_id: str) -> _Session:
        for model in request.candidates:
            self._dispatcher.resolve(model)
        wanted = request.validate_
        schema = await self._judge.schema(wanted.kind, wanted.context)
        notes = await self._retrieve(request.retrieve, request.messages) if request.retrieve else []
        return _Session(
            request=request,
            episode_id=episode_id,
            task=Task(kind=wanted.kind, key=_order_id(wanted.context)),
            schema=schema,
            notes=tuple(notes),
        )

    async def _retrieve(self, spec: RetrieveSpec, messages: list[ChatMessage]) -> list[RetrievedText]:
        query = spec.query or prompts.last_user_text(messages)
        if query is None:
            raise InvalidRequest(
                "there is no user message to search by; send `retrieve.query`", param="retrieve.query"
            )
        found = await self._notes.find(
            RetrieveRequest(query=query, collections=spec.collections, role=spec.role, k=spec.k)
        )
        return prompts.fitting(found, self._limits.notes_chars_max)

    async def _attempt(self, session: _Session, model: str, *, number: int, last: Tried | None) -> Tried:
        """One call and its verdict. A failure of the provider is an outcome, one of validators is raised."""
        ext: JsonObject = {"attempt": number}
        if last is not None:
            ext["repair_of_run_id"] = last.run_id
        origin = new_origin(
            episode_id=session.episode_id, task=session.task, retrieved=session.notes, ext=ext
        )
        order = self._dispatcher.admit(self._asking(session, model, last))
        async with self._dispatcher.call(order, origin) as call:
            try:
                completion = await self._dispatcher.generate(call)
            except PlatformError as error:
                call.fail(error)
                return Tried(model, origin.run_id, error=error)
            artifact = artifacts.parse(completion.content or "")
            call.verdict = await self._verdict(session, artifact, origin.run_id)
            return Tried(model, origin.run_id, artifact, completion.usage, call.verdict)

    def _asking(self, session: _Session, model: str, last: Tried | None) -> ChatRequest:
        repair = prompts.repairing(last.artifact, last.verdict.findings) if last and last.verdict else []
        spec = JsonSchemaSpec(name=session.task.kind, schema=session.schema)
        request = ChatRequest(
            model=model,
            messages=prompts.framed(session.request.messages, session.task.kind, session.notes, repair),
            max_tokens=self._limits.tokens_max,
            response_format=JsonSchemaFormat(type="json_schema", json_schema=spec),
        )
        if session.request.temperature is None:
            return request
        return request.model_copy(update={"temperature": session.request.temperature})

    async def _verdict(self, session: _Session, artifact: JsonValue, run_id: str) -> Verdict:
        wanted = session.request.validate_
        return await self._judge.judge(
            ValidateRequest(kind=wanted.kind, artifact=artifact, context=wanted.context, run_id=run_id)
        )

    def _answer(self, session: _Session, tried: list[Tried]) -> IterateResponse:
        judged = [(one, one.verdict) for one in tried if one.verdict is not None]
        if not judged:
            error = tried[-1].error
            assert error is not None
            raise error
        best, verdict = min(reversed(judged), key=lambda pair: _badness(pair[1]))
        outcome = _outcome(session.request.candidates[0], tried)
        self._metrics.iterations.labels(outcome).inc()
        return IterateResponse(
            ok=verdict.ok,
            artifact=best.artifact,
            verdict=verdict,
            outcome=outcome,
            attempts=[one.public() for one in tried],
            episode_id=session.episode_id,
        )


def _last_answered(tried: list[Tried]) -> Tried | None:
    return next((one for one in reversed(tried) if one.verdict is not None), None)


def _outcome(first_model: str, tried: list[Tried]) -> Outcome:
    if not tried[-1].ok:
        return "failed"
    if len(tried) == 1:
        return "first_pass"
    return "repaired" if tried[-1].model == first_model else "escalated"


def _badness(verdict: Verdict) -> tuple[int, int]:
    """How far from accepted: the verdict first, then the number of errors."""
    return RANK[verdict.verdict], sum(finding.severity == "error" for finding in verdict.findings)


def _identity(artifact: JsonValue) -> str:
    return content_id(artifact)


def _order_id(context: JsonObject) -> str | None:
    order = context.get("order")
    order_id = order.get("order_id") if isinstance(order, dict) else None
    return order_id if isinstance(order_id, str) else None
