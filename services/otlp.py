"""Sends spans to an OpenTelemetry collector, in batches, from a thread of its own."""

from threading import Thread
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from services.tracing import Kind, Span

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

    def __init__(self, endpoint: str, daemon: str, *, queue_max: int) -> None:
        self._resource = Resource.create({"service.name": daemon, "service.namespace": "stillhouse"})
        self._scope = InstrumentationScope("stillhouse")
        self._processor = BatchSpanProcessor(
            OTLPSpanExporter(endpoint.removesuffix(PATH) + PATH, timeout=TIMEOUT_S),
            max_queue_size=queue_max,
            schedule_delay_millis=DELAY_MS,
            max_export_batch_size=min(BATCH_SPANS_MAX, queue_max),
        )

    def export(self, span: Span) -> None:
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
