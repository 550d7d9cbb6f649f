"""What the gateway says of its own share of the time of requests, beside what their caller sees."""

from pathlib import Path

import httpx
import pytest

from gateway.engine import figures
from gateway.engine.figures import Figures
from tests.bench.gateway.test_relay import Door, door
from tests.bench.wrk import offered

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket, pytest.mark.timeout(300)]

PATH = "/v1/validate"
P50_MS_MAX = 0.25
"""With one connection. The SLO, 25 ms at p99 under production's load, is what alerts go by."""


def counted(it: Door) -> Figures:
    return figures.read(httpx.get(f"{it.gateway.url}/metrics", timeout=30.0, trust_env=False).text)


@pytest.mark.parametrize("connections", [1, 8, 32])
def test_overhead(tmp_path: Path, connections: int) -> None:
    with door(tmp_path) as it:
        straight = offered(it.load(PATH, straight=True, connections=connections), tmp_path)
        offered(it.load(PATH, connections=connections), tmp_path)  # what is made at the first use
        before = counted(it)
        through = offered(it.load(PATH, connections=connections), tmp_path)
        now = counted(it)
    own, lag = now.latency(figures.OVERHEAD, before), now.latency(figures.LAG, before)
    assert own is not None
    print(
        f"\n{connections} connections: overhead p50 {own.p50_ms:.3f} ms, p99 {own.p99_ms:.3f} ms; lag {lag};"
    )
    print(f"through {through}; straight {straight}")
    requests = now.requests - before.requests
    assert through.requests <= requests <= through.requests + connections  # those under way at the end
    if connections == 1:
        assert own.p50_ms <= P50_MS_MAX
