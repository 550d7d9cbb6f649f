"""One recorded task, done again by an arm; or its recorded answers, judged again."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError

from distill.backends import Peers
from distill.engine import episodes, times
from distill.engine.contexts import Contexts, Groups, Passage
from distill.engine.library import Item
from distill.engine.metrics import Metrics
from distill.engine.replay.results import (
    OUTCOMES,
    Result,
    Seen,
    attempts_of,
    codes_of,
    last_answer,
    served_by,
    total,
    with_digest,
)
from distill.engine.replay.tape import Tape
from distill.engine.replay.tasks import SYSTEM, Judging, LeftOut, Task
from schemas.canonical import content_id
from schemas.chat import ChatMessage, ValidateSpec
from schemas.iterate import IterateRequest, IterateResponse
from schemas.replay import Replay, ReplayAttempt, ReplayMode, ReplayOptions, ReplayOutcome
from schemas.runs import ModelRef, Usage
from schemas.runs import Task as RecordedTask
from schemas.verdicts import Finding, ValidateRequest, Verdict
from services.answers import parse

CONTEXT_CHARS_MAX: Final = 16_000
EARLIER_WORK: Final = "Earlier work that passed; use what applies:"
RUN_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")

ITERATED: Final = TypeAdapter(IterateResponse)
VERDICT: Final = TypeAdapter(Verdict)
PASSAGES: Final = TypeAdapter(list[Passage])


@dataclass(frozen=True, slots=True)
class Arm:
    """Under which names results are recorded. `execution` tells the episodes of one run from another's."""

    replay_id: str
    name: str
    execution: str


@dataclass(frozen=True, slots=True)
class _Judged:
    """A recorded attempt, and what validators says of it today; without a verdict there was no answer."""

    item: Item
    text: str | None
    verdict: Verdict | None


class Worker:
    """Does tasks, one call at a time; several may be under way."""

    def __init__(
        self,
        *,
        arm: Arm,
        options: ReplayOptions,
        tape: Tape,
        peers: Peers,
        groups: Groups,
        contexts: Contexts,
        metrics: Metrics,
    ) -> None:
        self._arm = arm
        self._options = options
        self._tape = tape
        self._peers = peers
        self._groups = groups
        self._contexts = contexts
        self._metrics = metrics

    async def do(self, task: Task, repeat: int) -> Result:
        """Raises `LeftOut` for what cannot be done again, and what peers fail with."""
        return await (self._judge_again(task) if self._options.recorded else self._do_again(task, repeat))

    # --- again --------------------------------------------------------------------------------

    async def _do_again(self, task: Task, repeat: int) -> Result:
        messages = task.messages
        episode = episodes.name_of(self._arm.execution, task.id, repeat)
        passages = await self._earlier_work(task) if self._options.contexts else []
        request = self._request(task, with_passages(messages, passages), repeat)
        asked = request.model_dump(mode="json", by_alias=True, exclude_none=True)
        told = await self._tape.ask(
            {"iterate": asked, "repeat": repeat},
            ITERATED,
            lambda: self._peers.iterate(request, episode),
            task=task.id,
        )
        answer = told.answer
        text, findings = last_answer(answer)
        served = [served_by(one) for one in answer.attempts if one.verdict is not None]
        digests = {f"{model.provider}/{model.name}": model.digest for model in served}
        seen = Seen.of(answer.verdict, answer.config_hash, digests)
        record = self._record(
            task,
            seen,
            repeat=repeat,
            ts=told.at,
            mode=self._options.mode,
            episode_id=answer.episode_id,
            outcome=OUTCOMES[answer.outcome],
            attempts=attempts_of(answer),
            text=text,
            findings=findings,
            context=[passage.evidence_id for passage in passages],
        )
        prompt = content_id([asked["messages"], asked["notes"], asked["validate"]])
        return Result(record, calls=len(record.attempts), seen=seen, prompt=prompt)

    def _request(self, task: Task, messages: list[ChatMessage], repeat: int) -> IterateRequest:
        options = self._options
        try:
            return IterateRequest(
                messages=messages,
                models=options.models,
                validate=ValidateSpec(kind=task.judging.kind, context=task.judging.context),
                notes=task.notes,
                attempts_max=options.attempts_max,
                temperature=options.temperature,
                seed=None if options.seed is None else options.seed + repeat,
            )
        except ValidationError:
            raise LeftOut("request_invalid", "what was recorded is no request of the repair loop") from None

    async def _earlier_work(self, task: Task) -> list[Passage]:
        """Passages for a task, none of them of its own group: that is looked at here once more."""
        told = await self._tape.ask(
            {
                "retrieve": task.id,
                "k": self._options.contexts,
                "collection": self._options.collection,
            },
            PASSAGES,
            lambda: self._contexts.retrieve(task.item, self._options.contexts),
            task=task.id,
        )
        for passage in told.answer:
            group = self._groups.of(passage.evidence_id)
            if group is None:
                raise LeftOut("context_gone", "earlier work that was found for it is evidence no more")
            if task.group in (group, passage.group):
                self._metrics.own_group_contexts.inc()
                raise LeftOut("own_group_context", "earlier work of the task's own group was found for it")
        return _fitting(told.answer)

    # --- recorded -----------------------------------------------------------------------------

    async def _judge_again(self, task: Task) -> Result:
        """The recorded attempts, up to the first that is accepted."""
        judging = task.judging
        judged: list[_Judged] = []
        at = task.item.evidence.get("ts")
        for item in task.chain():
            text = _said(item)
            verdict: Verdict | None = None
            if text is not None:
                told = await self._verdict(task, judging, text)
                verdict, at = told
            judged.append(_Judged(item, text, verdict))
            if verdict is not None and verdict.ok:
                break
        last = next((one for one in reversed(judged) if one.verdict is not None), None)
        if last is None or at is None:
            raise LeftOut("no_answer", "there is no recorded answer to judge")
        assert last.verdict is not None
        evidence = task.item.evidence
        # The same model may have had several digests over the time of the recordings.
        seen = Seen.of(
            last.verdict, evidence.get("config_hash"), dict.fromkeys(_served(one) for one in judged)
        )
        record = self._record(
            task,
            seen,
            repeat=0,
            ts=at,
            mode="recorded",
            episode_id=_name(evidence.get("episode_id"), task.id),
            outcome=_outcome(judged),
            attempts=[_attempt(one) for one in judged],
            text=last.text,
            findings=last.verdict.findings,
        )
        prompt = content_id([evidence["input"]["messages"], judging.kind, judging.context])
        return Result(record, calls=0, seen=seen, prompt=prompt)

    async def _verdict(self, task: Task, judging: Judging, text: str) -> tuple[Verdict, str]:
        schema = judging.context.get("schema")
        array = isinstance(schema, dict) and schema.get("type") == "array"
        request = ValidateRequest(
            kind=judging.kind, artifact=parse(text, array=array), context=judging.context
        )
        told = await self._tape.ask(
            {"validate": request.model_dump(mode="json")},
            VERDICT,
            lambda: self._peers.validate(request),
            task=task.id,
        )
        return told.answer, told.at

    # --- both ---------------------------------------------------------------------------------

    def _record(
        self,
        task: Task,
        seen: Seen,
        *,
        repeat: int,
        ts: str,
        mode: ReplayMode,
        episode_id: str,
        outcome: ReplayOutcome,
        attempts: list[ReplayAttempt],
        text: str | None,
        findings: list[Finding],
        context: Sequence[str] = (),
    ) -> Replay:
        return Replay(
            replay_id=self._arm.replay_id,
            ts=times.read(ts),
            evidence_id=task.id,
            group=task.group,
            work=task.work,
            episode_id=episode_id,
            task=RecordedTask(kind=task.judging.kind, key=task.key),
            mode=mode,
            outcome=outcome,
            attempts=attempts,
            context=[*context],
            config_hash=self._shape(seen),
            usage=total([one.usage for one in attempts]),
            arm=self._arm.name,
            repeat=repeat,
            role=task.role,
            text=text,
            findings=findings,
        )

    def _shape(self, seen: Seen) -> str:
        """One hash over what shaped the answer and the verdict on it."""
        arm = {"models", "attempts_max", "temperature", "contexts", "collection"}
        return content_id(
            {
                "arm": self._options.model_dump(mode="json", include=arm),
                "config": seen.config,
                "policy": seen.policy,
                "roster": seen.roster,
            }
        )


def with_passages(messages: Sequence[ChatMessage], passages: Sequence[Passage]) -> list[ChatMessage]:
    """The conversation with earlier work in its one system message, after the caller's own words."""
    if not passages:
        return [*messages]
    numbered = [f"[{number}] {passage.text}" for number, passage in enumerate(passages, start=1)]
    told = "\n\n".join([EARLIER_WORK, *numbered])
    first = messages[0]
    if first.role in SYSTEM and isinstance(first.content, str):
        return [first.model_copy(update={"content": f"{first.content}\n\n{told}"}), *messages[1:]]
    return [ChatMessage(role="system", content=told), *messages]


def _fitting(passages: Sequence[Passage]) -> list[Passage]:
    """The best passages, as many as fit."""
    left = CONTEXT_CHARS_MAX
    kept = []
    for passage in passages:
        left -= len(passage.text)
        if left < 0:
            break
        kept.append(passage)
    return kept


def _said(item: Item) -> str | None:
    """The text of a recorded answer."""
    output = item.evidence.get("output") or {}
    content: str | None = output.get("content")
    return content


def _model(judged: _Judged) -> ModelRef:
    return ModelRef.model_validate(judged.item.evidence["model"])


def _served(judged: _Judged) -> str:
    model = _model(judged)
    return with_digest(f"{model.provider}/{model.name}", model.digest)


def _attempt(judged: _Judged) -> ReplayAttempt:
    evidence = judged.item.evidence
    verdict = judged.verdict
    return ReplayAttempt(
        run_id=_name(evidence["source"]["key"], judged.item.id),
        model=_model(judged),
        verdict=verdict.verdict if verdict else None,
        codes=codes_of(verdict.findings) if verdict else [],
        usage=Usage.model_validate(evidence.get("usage") or {}),
        latency_ms=evidence.get("latency_ms"),
    )


def _name(said: str | None, otherwise: str) -> str:
    """What other systems call a run or an episode, where it is a name that we can write."""
    return said if said is not None and RUN_ID.fullmatch(said) else otherwise


def _outcome(judged: Sequence[_Judged]) -> ReplayOutcome:
    verdict = judged[-1].verdict
    if verdict is None or not verdict.ok:
        return "failed"
    if len(judged) == 1:
        return "local_pass"
    same = _model(judged[0]).name == _model(judged[-1]).name
    return "local_repaired" if same else "escalated_pass"
