"""Figures of a daemon out of its metrics, and what has changed between two of them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from prometheus_client.core import Metric

from schemas.status import CacheStatus, DatasetStatus, Latency, LogStatus, SpoolStatus

REQUESTS: Final = "http_server_request_duration_seconds"
OVERHEAD: Final = "gateway_overhead_seconds"
LAG: Final = "event_loop_lag_seconds"
HISTOGRAMS: Final = (REQUESTS, OVERHEAD, LAG)

IN_FLIGHT: Final = "http_requests_in_flight"
STARTED: Final = "process_start_time_seconds"
MEMORY: Final = "process_resident_memory_bytes"
WAITING: Final = ("gateway_upstream_waiting", "embedd_waiting_texts", "vectord_waiting", "chatd_waiting")
HITS: Final = "embedd_cache_hits_total"
MISSES: Final = "embedd_cache_misses_total"
CACHE_BYTES: Final = "embedd_cache_bytes"
SPOOL_RECORDS: Final = "chatd_spool_records"
SPOOL_BYTES: Final = "chatd_spool_bytes"
SPOOL_REFUSED: Final = "chatd_records_rejected_total"
LOG_BYTES: Final = "distill_log_bytes"
LOG_WAITING: Final = "distill_waiting_bytes"
LOG_APPENDED: Final = "distill_records_appended_total"
DATASETS: Final = "distill_datasets"
JOB_RUNNING: Final = "distill_job_running"

SINGLE: Final = frozenset(
    {
        IN_FLIGHT,
        STARTED,
        MEMORY,
        *WAITING,
        HITS,
        MISSES,
        CACHE_BYTES,
        SPOOL_RECORDS,
        SPOOL_BYTES,
        SPOOL_REFUSED,
        LOG_BYTES,
        LOG_WAITING,
        LOG_APPENDED,
        DATASETS,
        JOB_RUNNING,
    }
)

LINE: Final = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
BOUND: Final = re.compile(r'\ble="([^"]+)"')
STATUS: Final = "http_response_status_code"
FAILED: Final = f'{STATUS}="5'
ANSWERS: Final = f"{REQUESTS}_count"
COUNTED: Final = frozenset({ANSWERS, *(f"{name}_bucket" for name in HISTOGRAMS)})


@dataclass(frozen=True, slots=True)
class Figures:
    """What one look saw: values by name, summed over labels, and histograms as counts up to a bound (s)."""

    values: dict[str, float]
    buckets: dict[str, dict[float, float]]
    errors: float

    @property
    def requests(self) -> float:
        return self.buckets.get(REQUESTS, {}).get(float("inf"), 0.0)

    def counted(self, name: str) -> int:
        return int(self.values.get(name, 0))

    def value(self, name: str) -> float | None:
        return self.values.get(name)

    @property
    def waiting(self) -> int | None:
        depths = [int(self.values[name]) for name in WAITING if name in self.values]
        return sum(depths) if depths else None

    @property
    def spool(self) -> SpoolStatus | None:
        if SPOOL_BYTES not in self.values:
            return None
        return SpoolStatus(
            records=self.counted(SPOOL_RECORDS),
            bytes=self.counted(SPOOL_BYTES),
            refused=self.counted(SPOOL_REFUSED),
        )

    @property
    def log(self) -> LogStatus | None:
        if LOG_BYTES not in self.values:
            return None
        return LogStatus(
            bytes=self.counted(LOG_BYTES),
            waiting_bytes=self.counted(LOG_WAITING),
            appended=self.counted(LOG_APPENDED),
        )

    @property
    def datasets(self) -> DatasetStatus | None:
        if DATASETS not in self.values:
            return None
        return DatasetStatus(
            datasets=self.counted(DATASETS), job_running=bool(self.values.get(JOB_RUNNING, 0.0))
        )

    def cache(self, before: "Figures") -> CacheStatus | None:
        if HITS not in self.values:
            return None
        hits = self.counted(HITS) - before.counted(HITS)
        misses = self.counted(MISSES) - before.counted(MISSES)
        share = hits / (hits + misses) if hits + misses else None
        return CacheStatus(hits=hits, misses=misses, hit_share=share, bytes=self.counted(CACHE_BYTES))

    def latency(self, histogram: str, before: "Figures") -> Latency | None:
        """The times that were added to a histogram since; None where there are none."""
        earlier = before.buckets.get(histogram, {})
        since = {
            bound: count - earlier.get(bound, 0.0)
            for bound, count in sorted(self.buckets.get(histogram, {}).items())
        }
        half, most = quantile(since, 0.5), quantile(since, 0.99)
        if half is None or most is None:
            return None
        return Latency(p50_ms=round(half * 1000, 3), p99_ms=round(most * 1000, 3))


NOTHING: Final = Figures({}, {}, 0.0)


def read(text: str) -> Figures:
    """The figures in a daemon's `/metrics`. What is not known here is passed over."""
    return _gathered(_lines(text))


def of(metrics: Iterable[Metric]) -> Figures:
    """The same of metrics that are at hand: to write them down and read that takes ten times as long."""
    return _gathered(
        Series(
            sample.name,
            sample.labels.get("le"),
            sample.labels.get(STATUS, "").startswith("5"),
            sample.value,
        )
        for metric in metrics
        for sample in metric.samples
    )


class Series(NamedTuple):
    """One series: its upper bound where it is a bucket, and whether it is of failed requests."""

    name: str
    bound: str | None
    failed: bool
    value: float


def _lines(text: str) -> Iterator[Series]:
    for name, labels, value in LINE.findall(text):
        if name in SINGLE or name in COUNTED:
            bound = BOUND.search(labels)
            yield Series(name, bound[1] if bound else None, FAILED in labels, float(value))


def _gathered(lines: Iterable[Series]) -> Figures:
    values: defaultdict[str, float] = defaultdict(float)
    buckets: dict[str, defaultdict[float, float]] = {name: defaultdict(float) for name in HISTOGRAMS}
    errors = 0.0
    for name, bound, failed, value in lines:
        if name in SINGLE:
            values[name] += value
        elif bound is not None and (histogram := name.removesuffix("_bucket")) in buckets:
            buckets[histogram][float(bound)] += value
        elif failed and name == ANSWERS:
            errors += value
    return Figures(dict(values), {name: dict(counts) for name, counts in buckets.items()}, errors)


def quantile(counts: dict[float, float], share: float) -> float | None:
    """The time that `share` of a histogram's times do not exceed, in between its bounds by straight lines.

    Bounds ascend, counts are up to a bound. What lies beyond the last bound is told as that bound.
    """
    total = max(counts.values(), default=0.0)
    if total <= 0:
        return None
    below_bound = below_count = 0.0
    for bound, count in counts.items():
        if count >= share * total and count > below_count:
            if bound == float("inf"):
                return below_bound
            return below_bound + (bound - below_bound) * (share * total - below_count) / (count - below_count)
        below_bound, below_count = bound, count
    return below_bound
