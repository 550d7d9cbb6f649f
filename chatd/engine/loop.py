"""Generate, validate, repair: until the verdict lets the answer go, nothing improves, or the budget ends.

Every attempt is one model call with one run record, which carries the verdict; all are of one episode.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from pydantic import JsonValue

from chatd.backends import Completion
from chatd.backends.peers import Judge
from chatd.engine import prompts
from chatd.engine.calls import Call, Order, new_origin
from chatd.engine.dispatch import Dispatcher
from chatd.engine.narrowing import Narrowing
from chatd.engine.plan import Budget, Plan
from schemas.base import JsonObject
from schemas.canonical import content_id
from schemas.chat import ChatRequest, FunctionCall, JsonSchemaFormat, JsonSchemaSpec, TextFormat
from schemas.runs import RetrievedText, Task, Usage
from schemas.verdicts import ValidateRequest, Verdict, VerdictName
from services import answers
from services.errors import InvalidRequest, PlatformError, UpstreamError

RANK: Final[dict[VerdictName, int]] = {
    "accepted": 0,
    "needs_human_review": 1,
    "partially_accepted": 2,
    "rejected": 3,
}
CALLS_MAX: Final = 32
"""Tool calls of one answer that are judged, each for itself; an answer with more is given up."""

INLINE_CHARS_MAX: Final = 64 * 1024
"""Longer answers are read on a thread."""

ACCEPTED: Final[frozenset[VerdictName]] = frozenset({"accepted"})


@dataclass(frozen=True, slots=True)
class Limits:
    """`tokens_max` is for one attempt, `total_tokens_max` and `total_s` for all attempts at one artifact."""

    tokens_max: int
    total_tokens_max: int
    total_s: float
    notes_chars_max: int


@dataclass(frozen=True, slots=True)
class Work:
    """One artifact that is wanted.

    `request` is what is asked, whatever model it names; `models` are tried in their order. `as_written`
    puts it to the first model without a word of ours. An answer may go when its verdict is among `allowed`.
    `worker_ids` are those whom the `notes` are about, one each.
    """

    request: ChatRequest
    models: Sequence[str]
    kind: str
    context: JsonObject
    attempts_max: int
    episode_id: str | None
    as_written: bool
    allowed: frozenset[VerdictName] = ACCEPTED
    notes: tuple[RetrievedText, ...] = ()
    worker_ids: tuple[str | None, ...] = ()
    ext: JsonObject = field(default_factory=dict)

    @property
    def task(self) -> Task:
        order = self.context.get("order")
        order_id = order.get("order_id") if isinstance(order, dict) else None
        return Task(kind=self.kind, key=order_id if isinstance(order_id, str) else None)

    def judging(self, last: "Tried | None") -> JsonObject:
        """What the answer is held to, for the record: with it the task can be done again.

        `system_chars` is how much of the system message is the caller's own; it is absent where all of it is.
        `worker_ids` go with the retrieved texts, one each.
        """
        told: JsonObject = {"kind": self.kind, "context": self.context}
        if not self.as_written or last is not None:
            told["system_chars"] = prompts.own_system_chars(self.request.messages)
        if any(self.worker_ids):
            told["worker_ids"] = [*self.worker_ids]
        return told

    @property
    def own_format(self) -> bool:
        """Whether the caller says what the answer looks like."""
        return not isinstance(self.request.response_format, TextFormat | None)


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one attempt. Without a verdict there is an error: the provider failed.

    `completion` says what was judged and nothing else.
    """

    model: str
    call: Call
    artifact: JsonValue = None
    completion: Completion | None = None
    verdict: Verdict | None = None
    error: PlatformError | None = None

    @property
    def run_id(self) -> str:
        return self.call.origin.run_id

    @property
    def usage(self) -> Usage:
        return self.call.usage

    def same_as(self, other: "Tried") -> bool:
        """Whether nothing has moved: the same artifact, or the same findings to the letter."""
        if self.verdict is None or other.verdict is None:
            return False
        if content_id(self.artifact) == content_id(other.artifact):
            return True
        return self.verdict.findings == other.verdict.findings


@dataclass(slots=True)
class _Session:
    """One piece of work under way."""

    work: Work
    narrowing: Narrowing
    budget: Budget
    array: bool
    tried: list[Tried] = field(default_factory=list)
    unconstrained: set[str] = field(default_factory=set)
    terse: set[str] = field(default_factory=set)

    @property
    def last(self) -> Tried | None:
        """The latest attempt that came to an answer."""
        return next((one for one in reversed(self.tried) if one.verdict is not None), None)

    def heed(self, error: PlatformError, model: str) -> None:
        """Ask for less what a provider refused: a shorter prompt, or no schema to enforce."""
        if not isinstance(error, InvalidRequest) or (self.work.as_written and self.last is None):
            return
        if error.code == "context_length_exceeded":
            self.terse.add(model)
        elif not self.work.own_format:
            self.unconstrained.add(model)


class Loop:
    def __init__(self, dispatcher: Dispatcher, judge: Judge, limits: Limits) -> None:
        self._dispatcher = dispatcher
        self._judge = judge
        self._limits = limits

    async def run(self, work: Work) -> list[Tried]:
        """Work on one artifact; at least one attempt of those returned has a verdict.

        Raises `InvalidRequest` for a kind or a context that validators does not take, `Unavailable` when it
        gives no verdict, and the provider's error when not a single attempt came to an answer.
        """
        session = await self._begin(work)
        plan = Plan(work.models, work.attempts_max)
        stuck = False
        while (model := plan.next(stuck=stuck)) is not None:
            before = session.last
            tried = await self._attempt(session, model)
            session.tried.append(tried)
            session.budget.spend(tried.usage)
            if tried.verdict is not None:
                if tried.verdict.verdict in work.allowed:
                    break
                session.narrowing.learn(tried.artifact, tried.verdict.findings)
            if session.budget.spent:
                break
            stuck = _is_stuck(session, tried, before)
        if session.last is None:
            error = session.tried[-1].error
            assert error is not None
            raise error
        return session.tried

    async def _begin(self, work: Work) -> _Session:
        for model in work.models:
            self._dispatcher.resolve(model)
        schema = await self._judge.schema(work.kind, work.context)
        said = "\n".join(
            prompts.text_in(message) for message in work.request.messages if message.role == "user"
        )
        known = [worker_id for worker_id in work.worker_ids if worker_id is not None]
        narrowing = Narrowing(work.kind, schema, work.context, said=said, worker_ids=known)
        budget = Budget(
            tokens=self._limits.total_tokens_max,
            seconds=self._limits.total_s,
            unknown=self._limits.tokens_max,
        )
        return _Session(work, narrowing, budget, array=schema.get("type") == "array")

    async def _attempt(self, session: _Session, model: str) -> Tried:
        """One call and its verdict. A failure of the provider is an outcome, one of validators is raised."""
        work = session.work
        order = self._dispatcher.admit(self._asking(session, model))
        last = session.last
        ext: JsonObject = {**work.ext, "attempt": len(session.tried) + 1, "validate": work.judging(last)}
        if last is not None:
            ext["repair_of_run_id"] = last.run_id
        origin = new_origin(episode_id=work.episode_id, task=work.task, retrieved=work.notes, ext=ext)
        async with self._dispatcher.call(order, origin) as call:
            try:
                said = await self._dispatcher.generate(call, within_s=session.budget.left_s)
                judged = await _read(said, work.request, array=session.array)
            except PlatformError as error:
                call.fail(error)
                session.heed(error, model)
                return Tried(model, call, error=error)
            artifact, call.verdict = await self._verdict(work, judged.parts, origin.run_id)
            try:
                _check_format(work, order, judged.completion, call.verdict)
            except UpstreamError as error:
                call.fail(error)
                return Tried(model, call, error=error)
            return Tried(model, call, artifact, judged.completion, call.verdict)

    async def _verdict(
        self, work: Work, parts: Sequence[JsonValue], run_id: str
    ) -> tuple[JsonValue, Verdict]:
        """The worst part with its verdict: an answer is as good as that."""
        worst: tuple[JsonValue, Verdict] | None = None
        for part in parts:
            request = ValidateRequest(kind=work.kind, artifact=part, context=work.context, run_id=run_id)
            verdict = await self._judge.judge(request)
            if worst is None or badness(verdict) > badness(worst[1]):
                worst = part, verdict
        assert worst is not None
        return worst

    def _asking(self, session: _Session, model: str) -> ChatRequest:
        work = session.work
        last = session.last
        if work.as_written and last is None:
            return work.request.model_copy(update={"model": model})
        schema = session.narrowing.schema()
        repair: list[str] = []
        if last is not None and last.verdict is not None:
            repair = prompts.repairing(last.artifact, last.verdict.findings, session.narrowing.shown)
        asked: dict[str, object] = {
            "model": model,
            "messages": prompts.framed(
                work.request.messages,
                work.kind,
                None if model in session.terse else schema,
                work.notes,
                repair,
            ),
        }
        if work.request.tokens_max is None:
            asked["max_tokens"] = self._limits.tokens_max
        if not work.own_format and model not in session.unconstrained:
            spec = JsonSchemaSpec(name=work.kind, schema=schema)
            asked["response_format"] = JsonSchemaFormat(type="json_schema", json_schema=spec)
        return work.request.model_copy(update=asked)


@dataclass(frozen=True, slots=True)
class _Judged:
    """The parts of an answer that go to the validator, and an answer that says them and nothing else."""

    parts: list[JsonValue]
    completion: Completion


async def _read(said: Completion, asked: ChatRequest, *, array: bool) -> _Judged:
    """What `_judged` makes of an answer; a long one keeps nobody else waiting meanwhile."""
    work = partial(_judged, said, asked, array=array)
    size = len(said.content or "") + sum(len(call.function.arguments) for call in said.tool_calls)
    return await asyncio.to_thread(work) if size > INLINE_CHARS_MAX else work()


def _judged(said: Completion, asked: ChatRequest, *, array: bool) -> _Judged:
    """Raises `UpstreamError` for tool calls that are too many to be judged, or of tools nobody offered."""
    if len(said.tool_calls) > CALLS_MAX:
        raise UpstreamError(
            f"the answer has {len(said.tool_calls)} tool calls; at most {CALLS_MAX} can be judged",
            code="too_many_tool_calls",
        )
    offered = {tool.function.name for tool in asked.tools or ()}
    if any(call.function.name not in offered for call in said.tool_calls):
        raise UpstreamError("the model called a tool that it was not offered", code="upstream_invalid")
    content = (said.content or "").strip()
    parts: list[JsonValue] = []
    if content or not said.tool_calls:
        parts.append(answers.parse(content, array=array))
    calls = []
    for call in said.tool_calls:
        parts.append(answers.parse(call.function.arguments, array=array))
        function = FunctionCall(name=call.function.name, arguments=prompts.text_of(parts[-1]))
        calls.append(call.model_copy(update={"function": function}))
    return _Judged(
        parts,
        Completion(
            content=prompts.text_of(parts[0]) if content else None,
            finish_reason=said.finish_reason,
            usage=said.usage,
            tool_calls=tuple(calls),
        ),
    )


def _check_format(work: Work, order: Order, completion: Completion, verdict: Verdict) -> None:
    """Hold what may leave to the caller's own `response_format`, as without a gate."""
    if work.own_format and verdict.verdict in work.allowed:
        order.format.check(completion)


def _is_stuck(session: _Session, tried: Tried, before: Tried | None) -> bool:
    """Whether the next attempt belongs to the next model."""
    if tried.error is not None:
        first_refusal = sum(one.model == tried.model and one.error is not None for one in session.tried) == 1
        return not (tried.model in session.unconstrained | session.terse and first_refusal)
    return before is not None and before.model == tried.model and tried.same_as(before)


def badness(verdict: Verdict) -> tuple[int, int]:
    """How far from accepted: the verdict first, then the number of errors."""
    return RANK[verdict.verdict], sum(finding.severity == "error" for finding in verdict.findings)


def judged_ones(tried: Sequence[Tried]) -> Iterator[tuple[Tried, Verdict]]:
    return ((one, one.verdict) for one in tried if one.verdict is not None)


def best_of(tried: Sequence[Tried]) -> tuple[Tried, Verdict]:
    """The attempt nearest to being accepted, the latest of several."""
    return min(reversed(list(judged_ones(tried))), key=lambda pair: badness(pair[1]))
