"""One request to a model, from its first moment to its record."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Literal

import orjson

from chatd.backends import Completion, Gathered
from chatd.engine.attempts import Attempt
from chatd.engine.cache import Kept
from chatd.engine.caller import Caller
from chatd.engine.candidates import Route, Target
from chatd.engine.config import Snapshot, cost_usd
from chatd.engine.formats import FormatCheck
from schemas.base import JsonObject
from schemas.chat import ChatRequest, TextPart
from schemas.runs import ModelRef, RetrievedText, Run, Task, Usage
from schemas.verdicts import Verdict
from services import context, ids
from services.errors import PlatformError

NOT_PARAMS: Final = {"model", "messages", "tools"}
BYTES_A_TOKEN: Final = 4
"""A guess that holds for English text; used where nobody has counted."""

NOTHING: Final = Usage(prompt_tokens=0, completion_tokens=0, cost_usd=0.0)


@dataclass(frozen=True)
class Order:
    """A request that can be carried out: who may do it, and what the answer is held to."""

    request: ChatRequest
    route: Route
    snapshot: Snapshot
    format: FormatCheck
    caller: Caller

    @cached_property
    def tokens_guessed(self) -> int:
        """The tokens of the messages and of the longest answer."""
        most = self.request.tokens_max
        if most is None:
            most = self.snapshot.config.budgets.reserve_completion_tokens
        return prompt_tokens(self.request) + most


@dataclass(frozen=True, slots=True)
class Origin:
    """What a call is part of. Made before the call, so that its answer can name its run either way.

    `headers` go with that answer, a failure too; the call adds to them.
    """

    run_id: str
    principal: str | None
    episode_id: str | None = None
    task: Task | None = None
    retrieved: tuple[RetrievedText, ...] = ()
    ext: JsonObject = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


def new_origin(
    *,
    episode_id: str | None = None,
    task: Task | None = None,
    retrieved: tuple[RetrievedText, ...] = (),
    ext: JsonObject | None = None,
) -> Origin:
    """An origin with a new run id, for the principal of the request being served."""
    request = context.current()
    principal = request.principal if request else None
    run_id = ids.uuid7()
    headers = {"x-run-id": run_id}
    if episode_id is not None:
        headers["x-episode-id"] = episode_id
    return Origin(run_id, principal, episode_id, task, retrieved, ext or {}, headers)


class Call:
    """Collects what the run record will say. Unless told otherwise, the caller has gone away."""

    def __init__(self, order: Order, origin: Origin) -> None:
        self.order = order
        self.origin = origin
        self.ts = datetime.now(UTC)
        self.target: Target = order.route.targets[0]
        self.digest: str | None = None
        self.ttft_ms: float | None = None
        self.attempts: list[Attempt] = []
        self.gathered = Gathered()
        self.completion: Completion | None = None
        self.kept: Kept | None = None
        self.verdict: Verdict | None = None
        self.dropped: list[str] = []
        self.recorded = False
        self.status: Literal["ok", "failed", "aborted"] = "aborted"
        self.outcome: str = "aborted"
        self.code: str | None = None
        self._latency_ms: float | None = None
        self._settled: Usage | None = None
        self._started = time.perf_counter()

    def elapsed_ms(self) -> float:
        return round((time.perf_counter() - self._started) * 1000, 3)

    @property
    def latency_ms(self) -> float:
        """How long the model took; for a call that is under way, so far."""
        return self._latency_ms if self._latency_ms is not None else self.elapsed_ms()

    @property
    def served_by(self) -> ModelRef:
        """Who answered, or was asked last."""
        return ModelRef(provider=self.target.provider.name, name=self.target.model, digest=self.digest)

    def finish(self, completion: Completion) -> None:
        """The model has answered."""
        self.completion = completion
        self._latency_ms = self.elapsed_ms()
        self.status = self.outcome = "ok"

    def fail(self, error: Exception) -> None:
        """The call came to nothing, unless the model had answered before: then its run is a good one."""
        failure = error if isinstance(error, PlatformError) else PlatformError("unexpected failure")
        if self.completion is not None and failure.code != "response_format_violated":
            return
        if self.completion is not None and self.attempts:
            self.attempts[-1].disown(failure.code)
        self.status = "failed"
        self.outcome = failure.type
        self.code = failure.code

    def drop(self, params: list[str]) -> None:
        """Leave out what the target lacks, as the caller allows, and say so."""
        self.dropped = params
        if params:
            self.origin.headers["warning"] = f'299 chatd "dropped: {", ".join(params)}"'
        else:
            self.origin.headers.pop("warning", None)

    @property
    def raw_usage(self) -> JsonObject | None:
        """The provider's own count, as it came."""
        return self.completion.raw_usage if self.completion is not None else self.gathered.raw_usage

    @property
    def estimated(self) -> bool:
        """Whether the usage is our guess: the model was left, or broke off, before it said."""
        return (
            self.completion is None
            and self.gathered.finish_reason is None
            and (self.gathered.text is not None or any(one.generated for one in self.attempts))
        )

    @property
    def usage(self) -> Usage:
        """What the provider counted, with its price; a guess for what was broken off; null where unknown."""
        if self._settled is not None:
            return self._settled
        usage = self._usage()
        if self.completion is not None:  # it does not change any more
            self._settled = usage
        return usage

    def _usage(self) -> Usage:
        if self.kept is not None:
            counted = self.kept.completion.usage
            return counted.model_copy(update={"cost_usd": 0.0})
        done = self.completion
        counted = done.usage if done is not None else self.gathered.usage
        if self.estimated:
            said = "".join(self.gathered.content) + "".join(self.gathered.reasoning)
            return Usage(
                prompt_tokens=max(counted.prompt_tokens or 0, prompt_tokens(self.order.request)),
                completion_tokens=max(counted.completion_tokens or 0, _tokens(len(said.encode()))),
            )
        if done is None and not self.attempts:
            return NOTHING  # nobody was asked
        prices = self.order.snapshot.config.price_of(self.target.provider.name, self.target.model)
        cost = cost_usd(prices, self.raw_usage)
        return counted if cost is None else counted.model_copy(update={"cost_usd": cost})

    def line(self) -> bytes:
        """The run record as one line of JSONL."""
        return orjson.dumps(self._record(), option=orjson.OPT_APPEND_NEWLINE)

    def _record(self) -> dict[str, Any]:
        origin = self.origin
        said = self.order.request.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude_none=True
        )
        return {
            "schema": Run.schema_id,
            "schema_version": Run.version,
            "ext": self._ext(),
            "run_id": origin.run_id,
            "episode_id": origin.episode_id,
            "ts": self.ts.isoformat().replace("+00:00", "Z"),
            "principal": origin.principal,
            "task": None if origin.task is None else origin.task.model_dump(mode="json"),
            "request": {
                "messages": said["messages"],
                "tools": said.get("tools"),
                "params": {key: value for key, value in said.items() if key not in NOT_PARAMS},
            },
            "retrieved_context": [text.model_dump(mode="json") for text in origin.retrieved],
            "model": self.served_by.model_dump(mode="json"),
            "attempts": [_told(one) for one in self.attempts],
            "output": self._output(),
            "usage": _counted(self.usage),
            "latency_ms": self.latency_ms,
            "ttft_ms": self.ttft_ms,
            "verdict": None if self.verdict is None else self.verdict.model_dump(mode="json"),
            "config_hash": self.order.snapshot.hash,
        }

    def _output(self) -> dict[str, Any] | None:
        """What came back, whole or in part; None when nothing did."""
        done = self.completion
        content = done.content if done else self.gathered.text
        calls = done.tool_calls if done else self.gathered.tool_calls
        if done is None and content is None and not calls:
            return None
        return {
            "content": content,
            "tool_calls": [call.model_dump(mode="json") for call in calls] or None,
            "finish_reason": done.finish_reason if done else None,
        }

    def _ext(self) -> JsonObject:
        ext: JsonObject = dict(self.origin.ext)
        if thoughts := self.completion.reasoning if self.completion else self.gathered.thoughts:
            ext["reasoning"] = thoughts
        if self.order.route.alias:
            ext["alias"] = self.order.route.asked
        if self.kept is not None:
            ext["cached_run_id"] = self.kept.run_id
        if self.dropped:
            ext["dropped"] = [*self.dropped]
        if self.code is not None and not any(one.code == self.code for one in self.attempts):
            ext["code"] = self.code
        if self.kept is None and self.estimated:
            ext["usage_estimated"] = True
        return ext


def prompt_tokens(request: ChatRequest) -> int:
    """A guess at the tokens of the messages."""
    size = 0
    for message in request.messages:
        size += BYTES_A_TOKEN * 4  # what frames a message
        if isinstance(message.content, str):
            size += len(message.content.encode())
        elif message.content:
            size += sum(len(part.text.encode()) for part in message.content if isinstance(part, TextPart))
        size += sum(len(call.function.arguments) for call in message.tool_calls or ())
    return _tokens(size)


def _tokens(size: int) -> int:
    return -(-size // BYTES_A_TOKEN)


def _told(attempt: Attempt) -> dict[str, Any]:
    return {
        "provider": attempt.target.provider.name,
        "model": attempt.target.model,
        "status": attempt.status or "aborted",
        "code": attempt.code,
        "latency_ms": attempt.latency_ms,
    }


def _counted(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost_usd": usage.cost_usd,
    }
