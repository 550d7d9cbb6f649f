"""Half a million workers: how soon they are there, what memory they take, and a newer file under load."""

import os
import shutil
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.bench.validators.agency import JSON, PATH, TIMEOUT_S, Agency, agency, proposals
from tests.bench.wrk import offered

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket, pytest.mark.timeout(300)]

READY_S_MAX = 3.0
MEMORY_MB_MAX = 400
SWAP_P99_MS_MAX = 25
OLD = datetime(2026, 1, 2, tzinfo=UTC).timestamp()


def as_of(client: httpx.Client) -> str:
    return str(client.get("/v1/validators").json()["roster"]["as_of"])


def swap(ours: Agency, roster: Path, bodies: list[str]) -> list[float]:
    """Times of single checks, in ms, from the moment a newer file is there until it serves."""
    times_ms = []
    with httpx.Client(base_url=ours.daemon.url, trust_env=False, timeout=TIMEOUT_S) as client:
        before = as_of(client)
        shutil.copy(roster, other := roster.with_suffix(".new"))
        other.replace(roster)
        number = 0
        while number % 50 or as_of(client) == before:
            began = time.perf_counter()
            answer = client.post(PATH, content=bodies[number % len(bodies)], headers=JSON)
            times_ms.append((time.perf_counter() - began) * 1000)
            assert answer.json()["ok"]
            number += 1
    return times_ms


def test_half_a_million_workers(tmp_path: Path, world: Path) -> None:
    roster = tmp_path / "roster.parquet"
    shutil.copy(world / "roster.parquet", roster)
    os.utime(roster, (OLD, OLD))
    with agency(tmp_path, roster) as ours:
        bodies = proposals(ours.daemon, world)
        offered(ours.load(bodies, seconds=2), tmp_path)
        memory_mb = ours.memory_mb
        times_ms = swap(ours, roster, bodies)
        later_mb = ours.memory_mb
    p99_ms = statistics.quantiles(times_ms, n=100)[98]
    print(
        f"\nroster of 500,000: ready after {ours.ready_s:.2f} s; {memory_mb:.0f} MB, after a newer file "
        f"{later_mb:.0f} MB; checks meanwhile p99 {p99_ms:.2f} ms, longest {max(times_ms):.1f} ms"
    )
    assert ours.ready_s <= READY_S_MAX
    assert max(memory_mb, later_mb) <= MEMORY_MB_MAX
    assert p99_ms <= SWAP_P99_MS_MAX
