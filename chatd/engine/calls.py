"""One model call, from its first moment to its record."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

from chatd.backends import Completion, Gathered, Provider
from schemas.base import JsonObject
from schemas.canonical import content_id
from schemas.chat import ChatRequest
from schemas.runs import Attempt, ModelRef, RetrievedText, Run, RunOutput, RunRequest, Task, Usage
from schemas.verdicts import Verdict
from services import context, ids
from services.errors import PlatformError

NOT_PARAMS: Final = {"model", "messages", "tools"}


@dataclass(frozen=True, slots=True)
class Origin:
    """What a call is part of. Made before the call, so that its answer can name its run either way."""

    run_id: str
    principal: str | None
    episode_id: str | None = None
    task: Task | None = None
    retrieved: tuple[RetrievedText, ...] = ()
    ext: JsonObject = field(default_factory=dict)


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
    return Origin(ids.uuid7(), principal, episode_id, task, retrieved, ext or {})


class Call:
    """Collects what the run record will say. Unless told otherwise, the caller has gone away."""

    def __init__(self, provider: Provider, request: ChatRequest, origin: Origin) -> None:
        self.provider = provider
        self.request = request
        self.origin = origin
        self.ts = datetime.now(UTC)
        self.digest: str | None = None
        self.ttft_ms: float | None = None
        self.gathered = Gathered()
        self.completion: Completion | None = None
        self.verdict: Verdict | None = None
        self.status: Literal["ok", "failed", "aborted"] = "aborted"
        self.outcome: str = "aborted"
        self.code: str | None = None
        self._latency_ms: float | None = None
        self._started = time.perf_counter()

    def elapsed_ms(self) -> float:
        return round((time.perf_counter() - self._started) * 1000, 3)

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
        self.status = "failed"
        self.outcome = failure.type
        self.code = failure.code

    @property
    def usage(self) -> Usage:
        return self.completion.usage if self.completion is not None else self.gathered.usage

    def record(self) -> Run:
        latency_ms = self._latency_ms if self._latency_ms is not None else self.elapsed_ms()
        attempt = Attempt(
            provider=self.provider.name,
            model=self.request.model,
            status=self.status,
            code=self.code,
            latency_ms=latency_ms,
        )
        return Run(
            run_id=self.origin.run_id,
            episode_id=self.origin.episode_id,
            ts=self.ts,
            principal=self.origin.principal,
            task=self.origin.task,
            request=self._request(),
            retrieved_context=list(self.origin.retrieved),
            model=ModelRef(provider=self.provider.name, name=self.request.model, digest=self.digest),
            attempts=[attempt],
            output=self._output(),
            usage=self.usage,
            latency_ms=latency_ms,
            ttft_ms=self.ttft_ms,
            verdict=self.verdict,
            config_hash=content_id(self.provider.config),
            ext=self._ext(),
        )

    def _request(self) -> RunRequest:
        said = self.request.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
        return RunRequest(
            messages=said["messages"],
            tools=said.get("tools"),
            params={key: value for key, value in said.items() if key not in NOT_PARAMS},
        )

    def _output(self) -> RunOutput | None:
        """What came back, whole or in part; None when nothing did."""
        done = self.completion
        content = done.content if done else self.gathered.text
        calls = done.tool_calls if done else self.gathered.tool_calls
        if done is None and content is None and not calls:
            return None
        return RunOutput(
            content=content,
            tool_calls=[call.model_dump(mode="json") for call in calls] or None,
            finish_reason=done.finish_reason if done else None,
        )

    def _ext(self) -> JsonObject:
        thoughts = self.completion.reasoning if self.completion else self.gathered.thoughts
        return {**self.origin.ext, "reasoning": thoughts} if thoughts else self.origin.ext
