"""Sends spans to an OpenTelemetry collector, in batches, from a thread of its own."""

import logging
import socket
from collections.abc import Sequence
from threading import Thread
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from services.tracing import Kind, Span, SpanCounts

log = structlog.get_logger(__name__)

SHARED: Final = "opentelemetry.sdk._shared_internal"
"""Where the library says that its queue is full."""
PATH: Final = "/v1/traces"
TIMEOUT_S: Final = 2.0
DELAY_MS: Final = 1000.0
BATCH_SPANS_MAX: Final = 512
CLOSE_S_MAX: Final = 3.0

KINDS: Final[dict[Kind, SpanKind]] = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT}
SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


class OtlpExporter:
    """Keeps at most `queue_max` spans that the collector has not taken; beyond it the oldest are dropped.

    `endpoint` is the collector's URL, with or without the path that spans go to.

    The SDK's own tracer is passed by: it would make ids of its own, and requests have theirs already, which
    stand in logs and records whether they are traced or not.
    """

    def __init__(self, endpoint: str, daemon: str, *, port: int, queue_max: int, counts: SpanCounts) -> None:
        self._resource = Resource.create(
            {
                "service.name": daemon,
                "service.namespace": "stillhouse",
                "service.instance.id": f"{socket.gethostname()}:{port}",  # which of several replicas it was
            }
        )
        self._scope = InstrumentationScope("stillhouse")
        self._counts = counts
        self._processor = BatchSpanProcessor(
            _Sender(OTLPSpanExporter(endpoint.removesuffix(PATH) + PATH, timeout=TIMEOUT_S), counts),
            max_queue_size=queue_max,
            schedule_delay_millis=DELAY_MS,
            max_export_batch_size=min(BATCH_SPANS_MAX, queue_max),
        )

    def export(self, span: Span) -> None:
        self._counts.made += 1
        self._processor.on_end(self._readable(span))

    def close(self) -> None:
        """Send what is left. The processor itself would wait half a minute for a collector that is gone."""
        closing = Thread(target=self._processor.shutdown, name="close the span exporter", daemon=True)
        closing.start()
        closing.join(CLOSE_S_MAX)

    def _readable(self, span: Span) -> ReadableSpan:
        trace_id = int(span.trace_id, 16)
        parent = None
        if span.parent_id is not None:
            parent = SpanContext(trace_id, int(span.parent_id, 16), is_remote=True)
        attributes: dict[str, str | int] = dict(span.attributes)
        if span.error is not None:
            attributes["error.type"] = span.error
        return ReadableSpan(
            span.name,
            SpanContext(trace_id, int(span.span_id, 16), is_remote=False, trace_flags=SAMPLED),
            parent,
            self._resource,
            attributes,
            kind=KINDS[span.kind],
            status=Status(StatusCode.ERROR if span.error is not None else StatusCode.UNSET),
            start_time=span.started_ns,
            end_time=span.ended_ns,
            instrumentation_scope=self._scope,
        )


class _Sender(SpanExporter):
    """Sends through the library, and says once that the collector takes nothing, and once that it does again.

    The library itself would say so every second, in each daemon, for as long as it lasts.
    """

    def __init__(self, exporter: OTLPSpanExporter, counts: SpanCounts) -> None:
        self._exporter = exporter
        self._counts = counts
        self._failing = False
        self._library = _Overheard()
        for name in (OTLPSpanExporter.__module__, BatchSpanProcessor.__module__, SHARED):
            logging.getLogger(name).addFilter(self._library)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            log.warning("the collector takes no spans", reason=self._library.said)
        elif self._failing and not failed:
            log.info("the collector takes spans again")
        if not failed:
            self._counts.sent += len(spans)
            self._library.said = ""
        self._failing = failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the library's own omission

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _Overheard(logging.Filter):
    """Keeps the first of what the library says, for whoever tells it once, and lets nothing through."""

    def __init__(self) -> None:
        super().__init__()
        self.said = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.said = self.said or record.getMessage()
        return False
