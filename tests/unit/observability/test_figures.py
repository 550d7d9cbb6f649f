"""What the status reads off Prometheus texts: values, rates of change, and times at a share."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from gateway.engine import figures
from gateway.engine.overhead import Overhead
from services.telemetry import HttpMetrics, render

INFINITY = math.inf


def text_of(*answers: tuple[int, float]) -> str:
    registry = CollectorRegistry()
    metrics = HttpMetrics(registry, lambda: 3)
    for status, seconds in answers:
        metrics.observe("/v1/things", "GET", status, seconds)
    return render(registry).decode()


def test_requests_errors_and_gauges_are_read() -> None:
    seen = figures.read(text_of((200, 0.002), (503, 0.2), (404, 0.002)))
    assert (seen.requests, seen.errors, seen.value(figures.IN_FLIGHT)) == (3, 1, 3)
    assert seen.value(figures.MEMORY)


def test_times_are_those_since_the_last_look() -> None:
    before = figures.read(text_of(*[(200, 4.0)] * 100))
    now = figures.read(text_of(*[(200, 4.0)] * 100, *[(200, 0.004)] * 100))
    latency = now.latency(figures.REQUESTS, before)
    assert latency is not None
    assert 2.5 <= latency.p50_ms <= latency.p99_ms <= 5
    assert now.latency(figures.REQUESTS, now) is None


def test_what_other_daemons_have_is_absent() -> None:
    seen = figures.read(text_of((200, 0.1)))
    assert (seen.spool, seen.log, seen.datasets, seen.cache(figures.NOTHING), seen.waiting) == (None,) * 5


def test_the_share_of_hits_is_that_of_the_window() -> None:
    name = "embedd_cache"
    before = figures.read(f"{name}_hits_total 100.0\n{name}_misses_total 0.0\n{name}_bytes 5.0\n")
    now = figures.read(f"{name}_hits_total 103.0\n{name}_misses_total 1.0\n{name}_bytes 5.0\n")
    cache = now.cache(before)
    assert cache is not None
    assert (cache.hits, cache.misses, cache.hit_share) == (3, 1, 0.75)
    idle = now.cache(now)
    assert idle is not None
    assert idle.hit_share is None


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ({1.0: 0.0, 2.0: 10.0, INFINITY: 10.0}, 0.5, 1.5),
        ({1.0: 10.0, INFINITY: 10.0}, 1.0, 1.0),
        ({1.0: 0.0, INFINITY: 10.0}, 0.99, 1.0),
        ({1.0: 0.0, INFINITY: 0.0}, 0.5, None),
        ({}, 0.5, None),
    ],
)
def test_quantiles(counts: dict[float, float], share: float, expected: float | None) -> None:
    assert figures.quantile(counts, share) == expected


@given(st.lists(st.integers(0, 50), min_size=2, max_size=6), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_its_rank(sizes: list[int], share: float) -> None:
    bounds = [*range(1, len(sizes)), INFINITY]
    total, counts = 0, {}
    for bound, size in zip(bounds, sizes, strict=True):
        total += size
        counts[float(bound)] = float(total)
    found = figures.quantile(counts, share)
    if found is None:
        assert total == 0
        return
    upper = next(bound for bound, count in counts.items() if count >= share * total)
    assert found <= upper
    assert found >= min(upper, len(sizes) - 1) - 1


def test_overhead_leaves_out_the_time_at_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    overhead = Overhead(registry)
    times = iter([10.002, 15.002, 15.003])
    monkeypatch.setattr("gateway.engine.overhead.time.perf_counter", lambda: next(times))
    transit = overhead.transit("chatd", 10.0)
    transit.sent()
    transit.answered()
    transit.over()
    assert registry.get_sample_value("gateway_overhead_seconds_sum", {"daemon": "chatd"}) == pytest.approx(
        0.003
    )


def test_what_never_got_there_is_not_counted() -> None:
    registry = CollectorRegistry()
    transit = Overhead(registry).transit("chatd", 10.0)
    transit.answered()
    transit.over()
    assert registry.get_sample_value("gateway_overhead_seconds_count", {"daemon": "chatd"}) is None


def test_metrics_at_hand_and_their_text_say_the_same() -> None:
    registry = CollectorRegistry()
    http = HttpMetrics(registry, lambda: 3)
    overhead = Overhead(registry)
    for status, seconds in ((200, 0.002), (503, 0.2), (404, 70.0)):
        http.observe("/a", "GET", status, seconds)
        transit = overhead.transit("chatd", 0.0)
        transit.sent()
        transit.answered()
        transit.over()
    now = figures.of(registry.collect())
    assert now == replace(figures.read(render(registry).decode()), values=now.values)
    assert (now.requests, now.errors, now.value(figures.IN_FLIGHT)) == (3, 1, 3)
