"""`/v1/iterate`: notes from earlier work, then the repair loop, and the best there is as the answer."""

import hashlib
from collections.abc import Sequence

from chatd.backends.peers import Note, Notes
from chatd.engine import prompts
from chatd.engine.loop import Limits, Loop, Tried, Work, best_of
from chatd.engine.metrics import Metrics
from schemas.chat import ChatMessage, ChatRequest
from schemas.iterate import GivenNote, IterateAttempt, IterateRequest, IterateResponse, Outcome, RetrieveSpec
from schemas.runs import RetrievedText
from schemas.vectors import RetrieveRequest
from services.errors import InvalidRequest


class Refiner:
    def __init__(self, loop: Loop, notes: Notes, metrics: Metrics, limits: Limits) -> None:
        self._loop = loop
        self._notes = notes
        self._metrics = metrics
        self._limits = limits

    async def run(self, request: IterateRequest, episode_id: str) -> IterateResponse:
        """Work on one artifact.

        Raises `Unavailable` when validators or vectord is down, and the provider's error when not a
        single attempt came to an answer.
        """
        notes = [_note(given) for given in request.notes]
        if request.retrieve is not None:
            notes += await self._retrieve(request.retrieve, request.messages)
        notes = prompts.fitting(notes, self._limits.notes_chars_max)
        work = Work(
            request=_asked(request),
            models=request.candidates,
            kind=request.validate_.kind,
            context=request.validate_.context,
            attempts_max=request.attempts_max,
            episode_id=episode_id,
            as_written=False,
            notes=tuple(note.text for note in notes),
            worker_ids=tuple(note.worker_id for note in notes),
        )
        tried = await self._loop.run(work)
        best, verdict = best_of(tried)
        outcome = _outcome(request.candidates[0], tried)
        self._metrics.iterations.labels(outcome).inc()
        return IterateResponse(
            ok=verdict.ok,
            artifact=best.artifact,
            verdict=verdict,
            outcome=outcome,
            attempts=[_public(one) for one in tried],
            episode_id=episode_id,
            config_hash=best.call.order.snapshot.hash,
        )

    async def _retrieve(self, spec: RetrieveSpec, messages: list[ChatMessage]) -> list[Note]:
        query = spec.query or prompts.last_user_text(messages)
        if query is None:
            raise InvalidRequest(
                "there is no user message to search by; send `retrieve.query`", param="retrieve.query"
            )
        return await self._notes.find(
            RetrieveRequest(query=query, collections=spec.collections, role=spec.role, k=spec.k)
        )


def _note(given: GivenNote) -> Note:
    return Note(
        RetrievedText(
            collection=given.collection,
            id=given.id,
            role=given.role,
            score=given.score,
            text=given.text,
            text_sha256=hashlib.sha256(given.text.encode()).hexdigest(),
        ),
        given.worker_id,
    )


def _asked(request: IterateRequest) -> ChatRequest:
    given = {"temperature": request.temperature, "seed": request.seed}
    asked = ChatRequest(model=request.candidates[0], messages=request.messages)
    return asked.model_copy(update={name: value for name, value in given.items() if value is not None})


def _public(one: Tried) -> IterateAttempt:
    return IterateAttempt(
        model=one.model,
        artifact=one.artifact,
        findings=one.verdict.findings if one.verdict else [],
        usage=one.usage,
        run_id=one.run_id,
        verdict=one.verdict.verdict if one.verdict else None,
        served_by=one.call.served_by,
        latency_ms=one.call.latency_ms,
    )


def _outcome(first_model: str, tried: Sequence[Tried]) -> Outcome:
    verdict = tried[-1].verdict
    if verdict is None or not verdict.ok:
        return "failed"
    if len(tried) == 1:
        return "first_pass"
    return "repaired" if tried[-1].model == first_model else "escalated"
