"""Logs and metrics: one JSON line an event, one registry a daemon. Bodies and secrets stay out."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client import generate_latest as render

from services import context
from services.settings import LogLevel

SECRET = re.compile(r"\b(?:sh|sk|pk|key)-[A-Za-z0-9_-]{8,}|(?i:bearer)\s+\S+")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

Event = MutableMapping[str, Any]


def redact(text: str) -> str:
    """The text with anything shaped like a key or bearer token replaced."""
    return SECRET.sub("[redacted]", text)


def _redact_values(_: Any, __: str, event: Event) -> Event:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
    return event


def _add_context(_: Any, __: str, event: Event) -> Event:
    if (request := context.current()) is not None:
        event.setdefault("request_id", request.request_id)
        event.setdefault("trace_id", request.traceparent[3:35])
    return event


def _to_json(_: Any, __: str, event: Event) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def configure_logging(daemon: str, level: LogLevel) -> None:
    """Send our events and those of the libraries to stdout as JSON lines. Called once, by `serve`."""

    def add_daemon(_: Any, __: str, event: Event) -> Event:
        event["daemon"] = daemon
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        add_daemon,
        _add_context,
        structlog.processors.format_exc_info,
        _redact_values,
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, _to_json],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _to_json],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.WARNING))  # libraries speak up when something is wrong


class HttpMetrics:
    """What every daemon counts about its own HTTP service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "http_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self.seconds = Histogram(
            "http_request_seconds", "Time to answer.", ["route"], registry=registry, buckets=SECONDS
        )
        self.in_flight = Gauge("http_requests_in_flight", "Requests being served.", registry=registry)
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer. `route` is a template and `method` a known one, so the series are bounded."""
        key = (route, method, status)
        pair = self._children.get(key)
        if pair is None:
            pair = (self.requests.labels(route, method, str(status)), self.seconds.labels(route))
            self._children[key] = pair
        pair[0].inc()
        pair[1].observe(seconds)


__all__ = ["CollectorRegistry", "HttpMetrics", "configure_logging", "redact", "render"]
