"""A span for every attempt at a model, by OpenTelemetry's conventions for generative AI."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from chatd.engine.attempts import Attempt
from chatd.engine.calls import Call
from services import tracing
from services.context import RequestContext
from services.tracing import Span, Tracer


class Spans:
    """`tracer` is None where nothing is traced: then providers are told of the request's own span."""

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer

    @contextmanager
    def around(self, attempt: Attempt) -> Iterator[None]:
        """Ask a provider. It is told of a span that is the attempt's."""
        if self._tracer is None:
            yield
            return
        with tracing.child() as attempt.under:
            yield

    def told(self, call: Call) -> None:
        """Hand over the spans of a call whose attempts are all over."""
        if self._tracer is not None:
            for attempt in call.attempts:
                if attempt.under is not None:
                    self._tracer.export(_span(call, attempt, attempt.under))


def _span(call: Call, attempt: Attempt, under: RequestContext) -> Span:
    target = attempt.target
    attributes: dict[str, str | int] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": target.provider.name,
        "gen_ai.request.model": target.model,
        "stillhouse.run_id": call.origin.run_id,
    }
    if attempt.status == "ok":
        usage = call.usage
        if usage.prompt_tokens is not None:
            attributes["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        if usage.completion_tokens is not None:
            attributes["gen_ai.usage.output_tokens"] = usage.completion_tokens
    seconds = attempt.latency_ms / 1000
    return Span(
        name=f"chat {target.model}",
        kind="client",
        traceparent=under.traceparent,
        parent_id=under.parent_id,
        seconds=seconds,
        attributes=attributes,
        error=None if attempt.status == "ok" else attempt.code or "aborted",
        ended_ns=time.time_ns() - int((attempt.elapsed_s - seconds) * 1e9),
    )
