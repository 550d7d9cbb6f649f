"""Which requests are traced, and the spans of those that are, handed to whoever sends them to a collector."""

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from services import context, ids
from services.context import RequestContext
from services.errors import InvalidRequest
from services.settings import DaemonSettings

Kind = Literal["server", "client"]
Attributes = Mapping[str, str | int]

SAMPLED: Final = 0x01
RANDOM: Final = 0x02
"""Says that the trace id is random throughout; it goes on to others as it came."""
LOW_BITS: Final = 1 << 64
"""The part of a trace id that decides whether it is sampled, as OpenTelemetry's own samplers do it."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something that was done for a request, and is over. `error` says in a word what went wrong, if it did.

    `traceparent` is the span's own, `parent_id` the span that asked for it, if one did.
    """

    name: str
    kind: Kind
    traceparent: str
    parent_id: str | None
    seconds: float
    attributes: Attributes
    error: str | None = None
    ended_ns: int = field(default_factory=time.time_ns)

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        return self.traceparent[36:52]

    @property
    def started_ns(self) -> int:
        return self.ended_ns - int(self.seconds * 1e9)


class SpanCounts(Collector):
    """Spans that were made, and those that the collector took: the others wait, or are lost."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.made = 0
        self.sent = 0
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("trace_spans_made", "Spans of requests that are traced.", self.made)
        yield CounterMetricFamily("trace_spans_sent", "Those that the collector took.", self.sent)


class Exporter(Protocol):
    """Takes spans at once and sends them later. `close` sends what is left, within bounds."""

    def export(self, span: Span) -> None: ...

    def close(self) -> None: ...


class FakeExporter:
    """Keeps spans, for tests."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def export(self, span: Span) -> None:
        self.spans.append(span)

    def close(self) -> None:
        return


def sampled(traceparent: str) -> bool:
    return bool(_flags(traceparent) & SAMPLED)


def _flags(traceparent: str) -> int:
    return int(traceparent[-2:], 16)


class Tracer:
    """Decides once a trace, at the first daemon that sees it, and makes spans of what is decided for.

    A caller who says that a trace is not sampled is believed. One who says that it is, only where `trusted`:
    strangers could otherwise have everything recorded.
    """

    def __init__(self, exporter: Exporter, *, ratio: float) -> None:
        self._exporter = exporter
        self._bound = round(ratio * LOW_BITS)

    def traceparent(self, offered: str | None, *, trusted: bool) -> str:
        """The `traceparent` of this hop, which says whether it is sampled."""
        own = ids.child_traceparent(offered)
        wanted = sampled(own) and (
            (trusted and parent_of(offered) is not None) or int(own[19:35], 16) < self._bound
        )
        return f"{own[:-2]}{_flags(own) & RANDOM | wanted:02x}"

    def served(
        self, request: RequestContext, *, route: str, method: str, status: int, seconds: float
    ) -> None:
        """A request was answered."""
        if not sampled(request.traceparent):
            return
        self._exporter.export(
            Span(
                name=f"{method} {route}",
                kind="server",
                traceparent=request.traceparent,
                parent_id=request.parent_id,
                seconds=seconds,
                attributes={
                    "http.request.method": method,
                    "http.route": route,
                    "http.response.status_code": status,
                    "stillhouse.request_id": request.request_id,
                },
                error=str(status) if status >= 500 else None,
            )
        )

    def continued(self, request_id: str, traceparent: str) -> RequestContext:
        """A request that came in together with others, and not with headers of its own."""
        own = self.traceparent(traceparent, trusted=True)
        return RequestContext(request_id, own, parent_id=parent_of(traceparent))

    def export(self, span: Span) -> None:
        """Something else was done for a request whose trace is sampled."""
        if sampled(span.traceparent):
            self._exporter.export(span)

    def close(self) -> None:
        """Send what is left. Takes seconds where the collector is gone."""
        self._exporter.close()


def leave_out(request: RequestContext) -> None:
    """Record nothing of a request itself, since it stands for several others."""
    own = request.traceparent
    request.traceparent = f"{own[:-2]}{_flags(own) & RANDOM:02x}"


def parent_of(offered: str | None) -> str | None:
    """The id of the span that a `traceparent` comes from; None for one that says nothing."""
    match = ids.TRACEPARENT.fullmatch(offered) if offered is not None else None
    return match[2] if match and match[1] != "0" * 32 and match[2] != "0" * 16 else None


@contextmanager
def child() -> Iterator[RequestContext | None]:
    """Do something for the current request under a span of its own; None where there is no request.

    Whoever is called meanwhile is told of that span in place of the request's.
    """
    request = context.current()
    if request is None:
        yield None
        return
    own = child_of(request)
    with context.within(own):
        yield own


def child_of(request: RequestContext) -> RequestContext:
    """A span of its own for something that is done for a request."""
    parent = request.traceparent
    return replace(
        request,
        traceparent=f"{parent[:36]}{random.getrandbits(64) | 1:016x}{parent[52:]}",
        parent_id=parent[36:52],
    )


def open_tracer(daemon: str, settings: DaemonSettings, registry: CollectorRegistry) -> Tracer | None:
    """The tracer that the settings ask for, if any. Raises `InvalidRequest` where its extra is missing."""
    if settings.otlp_endpoint is None:
        return None
    try:
        from services.otlp import OtlpExporter  # noqa: PLC0415 - a dependency of those alone who trace
    except ImportError as error:
        raise InvalidRequest(
            "STILLHOUSE_OTLP_ENDPOINT is set and needs the extra `tracing`: pip install 'stillhouse[tracing]'"
            f" ({error})",
            code="extra_missing",
        ) from None
    exporter = OtlpExporter(
        settings.otlp_endpoint,
        daemon,
        port=settings.port,
        queue_max=settings.trace_queue_max,
        counts=SpanCounts(registry),
    )
    return Tracer(exporter, ratio=settings.trace_ratio)
