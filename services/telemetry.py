"""Logs and metrics: one JSON line an event, one registry a daemon. Bodies and secrets stay out."""

import asyncio
import contextlib
import logging
import re
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, BinaryIO, Final

import orjson
import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from services import context
from services.context import RequestContext
from services.settings import LogLevel

SECRET = re.compile(r"\b(?:sh|sk|pk|key)-[A-Za-z0-9_-]{8,}|(?i:bearer)\s+\S+")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

STATUS_TEXTS: Final = tuple(map(str, range(1000)))
LAG_INTERVAL_S: Final = 0.25
FLUSH_S: Final = 0.1
FLUSH_LINES: Final = 512

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


class AccessLog:
    """One line for each request, gathered and written many at a time: a write of its own for each would cost
    more than a warm request does. Lines are at most `FLUSH_S` late; a killed process loses that much of them.
    """

    def __init__(self, daemon: str, level: LogLevel) -> None:
        self._daemon = daemon
        self._wanted = level in ("debug", "info")
        self._stream: BinaryIO | None = None
        self._lines: list[bytes] = []
        self._second = 0
        self._second_text = ""
        self._timer: asyncio.TimerHandle | None = None

    def open(self, stream: BinaryIO) -> None:
        """Write to `stream` from here on. Until then nothing is kept."""
        self._stream = stream

    def write(
        self, request: RequestContext, route: str, method: str, status: int, duration_ms: float
    ) -> None:
        if self._stream is None or not self._wanted:
            return
        line = {
            "route": route,
            "method": method,
            "status": status,
            "duration_ms": duration_ms,
            "event": "request",
            "level": "info",
            "ts": self._timestamp(),
            "daemon": self._daemon,
            "request_id": request.request_id,
            "trace_id": request.traceparent[3:35],
        }
        if request.principal is not None:
            line["principal"] = request.principal
        self._lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        if len(self._lines) >= FLUSH_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def _timestamp(self) -> str:
        """Now, in ISO form; its second is written out once a second."""
        second, fraction = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._second_text}.{fraction // 1000:06d}Z"

    def flush(self) -> None:
        """Write what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if lines and self._stream is not None:
            with contextlib.suppress(OSError):  # whoever read our output is gone
                self._stream.write(b"".join(lines))
                self._stream.flush()


class Durations:
    """Times by labels: plain numbers of one event loop, put into Prometheus' form when they are asked for.

    The library's own histograms take a lock for each observation, which here would show.
    """

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], bounds_s: Sequence[float] = SECONDS
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._bounds_s = bounds_s
        self._times: dict[tuple[str, ...], _Times] = {}

    def observe(self, labels: tuple[str, ...], seconds: float) -> None:
        """Count one time. The values of labels must come from small sets: each makes a series."""
        times = self._times.get(labels)
        if times is None:
            times = self._times[labels] = _Times(len(self._bounds_s) + 1)
        times.buckets[bisect_left(self._bounds_s, seconds)] += 1
        times.sum_s += seconds

    def counts(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """How many times there are by labels."""
        for labels, times in self._times.items():
            yield labels, sum(times.buckets)

    def family(self) -> Metric:
        return _Histogram(self._name, self._documentation, self._labels, self._bounds_s, self._times)


class _Times:
    """How many fell into each bucket, and their sum in seconds."""

    __slots__ = ("buckets", "sum_s")

    def __init__(self, buckets: int) -> None:
        self.buckets = [0] * buckets
        self.sum_s = 0.0


class _Histogram(Metric):
    """As the library's, but that it is written as text without a sample for each line: a tenth of the work.

    That matters where there are many routes, since nobody is served meanwhile.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        bounds_s: Sequence[float],
        times: Mapping[tuple[str, ...], _Times],
    ) -> None:
        super().__init__(name, documentation, "histogram")
        self._labels = labels
        self._bounds = [*map(str, bounds_s), "+Inf"]
        self._times = times

    @property
    def samples(self) -> list[Sample]:
        """Made for those alone who look at them."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=self._labels)
        for labels, times in self._times.items():
            counts = zip(self._bounds, accumulate(times.buckets), strict=True)
            family.add_metric(labels, list(counts), times.sum_s)
        return family.samples

    @samples.setter
    def samples(self, _: list[Sample]) -> None:
        """The base class begins with none."""

    def lines(self) -> Iterator[str]:
        """In Prometheus' text format."""
        yield f"# HELP {self.name} {self.documentation}\n# TYPE {self.name} histogram\n"
        for values, times in self._times.items():
            told = ",".join(
                f'{label}="{_escaped(value)}"' for label, value in zip(self._labels, values, strict=True)
            )
            before = f'{self.name}_bucket{{{told}{"," if told else ""}le="'
            for bound, count in zip(self._bounds, accumulate(times.buckets), strict=True):
                yield f'{before}{bound}"}} {count}.0\n'
            braced = f"{{{told}}}" if told else ""
            yield f"{self.name}_count{braced} {sum(times.buckets)}.0\n"
            yield f"{self.name}_sum{braced} {times.sum_s!r}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def render(registry: Collector) -> bytes:
    """All metrics of a registry, in Prometheus' text format."""
    others: list[Metric] = []
    lines: list[str] = []
    for family in registry.collect():
        if isinstance(family, _Histogram):
            lines += family.lines()
        else:
            others.append(family)
    return generate_latest(_Collected(others)) + "".join(lines).encode()


class _Collected(Collector):
    """Metrics that are at hand."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class HttpMetrics(Collector):
    """What every daemon counts about its own HTTP service, its event loop's tasks, and how late that runs."""

    def __init__(self, registry: CollectorRegistry, in_flight: Callable[[], int]) -> None:
        self._in_flight = in_flight
        self._seconds = Durations(
            "http_server_request_duration_seconds",
            "Time from a request to the end of its answer.",
            ("http_route", "http_request_method", "http_response_status_code"),
        )
        self._lag = Durations(
            "event_loop_lag_seconds",
            "How late the event loop ran a timer: as late it accepts and reads.",
            (),
        )
        ProcessCollector(registry=registry)
        registry.register(self)

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer. `route` is a template and `method` a known one, so the series are bounded."""
        self._seconds.observe((route, method, STATUS_TEXTS[status]), seconds)

    async def watch_loop(self) -> None:
        """Look at an interval how late the event loop is, for ever."""
        while True:
            due = time.perf_counter() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            self._lag.observe((), max(0.0, time.perf_counter() - due))

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "http_requests", "Requests answered.", labels=["route", "method", "status"]
        )
        for labels, count in self._seconds.counts():
            requests.add_metric(labels, count)
        yield requests
        yield self._seconds.family()
        yield self._lag.family()
        yield GaugeMetricFamily("event_loop_tasks", "Tasks of the event loop that are not done.", _tasks())
        yield GaugeMetricFamily("http_requests_in_flight", "Requests being served.", self._in_flight())


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # metrics are also collected where no loop runs: when they are registered
        return 0


__all__ = [
    "AccessLog",
    "CollectorRegistry",
    "Durations",
    "HttpMetrics",
    "configure_logging",
    "redact",
    "render",
]
