"""Artifacts a second in batches, and what others notice of them."""

import statistics
import threading
import time
from itertools import cycle, islice
from pathlib import Path

import httpx
import pytest

from tests.bench.validators.agency import PATH, TIMEOUT_S, agency, proposals
from tests.processes import Running

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket, pytest.mark.timeout(300)]

ROUNDS = 5
LINES = 10_000
RATE_MIN = 10_000
OTHERS_P99_MS_MAX = 25


class Others(threading.Thread):
    """Single checks, one every 5 ms, until told to stop."""

    def __init__(self, daemon: Running, body: str) -> None:
        super().__init__()
        self._daemon = daemon
        self._body = body
        self.over = threading.Event()
        self.times_ms: list[float] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._daemon.url, trust_env=False, timeout=TIMEOUT_S) as client:
            while not self.over.wait(0.005):
                began = time.perf_counter()
                client.post(PATH, content=self._body, headers={"content-type": "application/json"})
                self.times_ms.append((time.perf_counter() - began) * 1000)


def rate_of(client: httpx.Client, body: str) -> float:
    """Artifacts a second in one batch, all of which are accepted."""
    began = time.perf_counter()
    answer = client.post(f"{PATH}/batch", content=body).raise_for_status().content
    seconds = time.perf_counter() - began
    assert answer.count(b'{"ok":true') == LINES
    return LINES / seconds


def test_batches(tmp_path: Path, world: Path) -> None:
    with (
        agency(tmp_path, world / "roster.parquet") as ours,
        httpx.Client(base_url=ours.daemon.url, trust_env=False, timeout=TIMEOUT_S) as client,
    ):
        bodies = proposals(ours.daemon, world)
        body = "\n".join(islice(cycle(bodies), LINES))
        rate = statistics.median(rate_of(client, body) for _ in range(ROUNDS))
        others = Others(ours.daemon, bodies[0])
        others.start()
        beside = statistics.median(rate_of(client, body) for _ in range(ROUNDS))
        others.over.set()
        others.join()
    p99_ms = statistics.quantiles(others.times_ms, n=100)[98]
    print(f"\nbatches: {rate:,.0f} artifacts/s; {beside:,.0f} beside single checks (p99 {p99_ms:.1f} ms)")
    assert rate >= RATE_MIN
    assert p99_ms <= OTHERS_P99_MS_MAX
