"""Hours in minutes: memory stays where it is under full load, and callers that hang up leave nothing behind.

`SOAK_S` says for how many seconds; `make soak` sets it.
"""

import os
import re
import socket
import statistics
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.bench.house import MEGABYTE, TIMEOUT_S, WARM_TEXTS, House, MemoryWatch, bodies_of, body_of, house
from tests.bench.load import NUMBER, generate
from tests.processes import Running

SOAK_S = float(os.environ.get("SOAK_S", "300"))

pytestmark = [
    pytest.mark.bench,
    pytest.mark.enable_socket,
    pytest.mark.timeout(SOAK_S + 300),
    pytest.mark.skipif("SOAK_S" not in os.environ, reason="long: `make soak` runs it"),
]

SETTLING_S = min(60.0, SOAK_S / 3)
SLICE_S = 30.0
COLD_EVERY = 25
SLOPE_MB_A_MINUTE_MAX = 2.0
ABORTS = 10_000
ABORT_GROWTH_MB_MAX = 10.0
ABORT_ROUNDS = 4
PAUSES_S = (0.0, 0.0, 0.001, 0.002)
IDLE_TIMEOUT_S = 30.0

SMALL_CACHES = {
    "EMBEDD_CACHE_BYTES_MAX": str(4 * MEGABYTE),
    "EMBEDD_FRAGMENT_BYTES_MAX": str(4 * MEGABYTE),
}
FILLING_TEXTS = 2000


def fill_caches(ours: House) -> None:
    """A cache that is still filling grows, and should; full is what it is after some days."""
    ours.embed([f"filling text {number}" for number in range(FILLING_TEXTS)])
    ours.warm()


def slope_mb_a_minute(samples: list[tuple[float, int]]) -> float:
    settled = [(seconds / 60, rss / MEGABYTE) for seconds, rss in samples if seconds >= SETTLING_S]
    return statistics.linear_regression(*zip(*settled, strict=True)).slope


def test_memory_is_flat_under_full_load(tmp_path: Path) -> None:
    requests = 0
    with house(tmp_path, env=SMALL_CACHES) as ours:
        fill_caches(ours)
        daemons = {"gateway": ours.gateway, "embedd": ours.embedd}
        with MemoryWatch(daemons, interval_s=1.0) as memory:
            ends_at = time.monotonic() + SOAK_S
            while (left_s := ends_at - time.monotonic()) > 1:
                cold = body_of([f"at {left_s}, {NUMBER}"])
                bodies = [*bodies_of(WARM_TEXTS)[: COLD_EVERY - 1], cold]
                outcome = generate(ours.load(bodies, seconds=min(SLICE_S, left_s)), tmp_path)
                assert outcome.failures == 0
                requests += outcome.requests
                for daemon in daemons.values():
                    os.truncate(daemon.log, 0)  # a log of a million requests is of no use
    slopes = {name: slope_mb_a_minute(samples) for name, samples in memory.samples.items()}
    print(
        f"\n{requests:,} requests in {SOAK_S:g} s, none failed;",
        ", ".join(
            f"{name} {memory.samples[name][-1][1] / MEGABYTE:.0f} MB, {slope:+.2f} MB a minute"
            for name, slope in slopes.items()
        ),
    )
    assert max(slopes.values()) <= SLOPE_MB_A_MINUTE_MAX


def in_flight(daemon: Running) -> float:
    text = httpx.get(f"{daemon.url}/metrics", timeout=TIMEOUT_S, trust_env=False).text
    match = re.search(r"^http_requests_in_flight (\S+)$", text, re.MULTILINE)
    assert match is not None
    return float(match[1])


def abort(ours: House, numbers: range) -> None:
    """Send requests and hang up on them, by an orderly end and by a reset in turn."""
    url = urlsplit(ours.url)
    for number in numbers:
        texts = [f"nobody waits for this: {number}", WARM_TEXTS[number % len(WARM_TEXTS)]]
        body = body_of(texts if number % 2 else texts[1:])
        head = f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\nauthorization: Bearer {ours.key}\r\n"
        request = f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        # Every eighth leaves in the middle of its request.
        sent = request.encode()[: -10 if number % 8 == 0 else None]
        with socket.create_connection((url.hostname, url.port), timeout=TIMEOUT_S) as connection:
            connection.sendall(sent)
            time.sleep(PAUSES_S[number % len(PAUSES_S)])
            if number % 3 == 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def wait_until_idle(daemon: Running, idle: float) -> None:
    deadline = time.monotonic() + IDLE_TIMEOUT_S
    while (now := in_flight(daemon)) != idle:
        assert time.monotonic() < deadline, f"{now:g} requests are still in flight; {idle:g} before"
        time.sleep(0.2)


def test_callers_that_hang_up_leave_nothing(tmp_path: Path) -> None:
    with house(tmp_path, latency_ms=1.0, env=SMALL_CACHES) as ours:
        fill_caches(ours)
        daemons = {"gateway": ours.gateway, "embedd": ours.embedd}
        idle = {name: in_flight(daemon) for name, daemon in daemons.items()}
        share = ABORTS // ABORT_ROUNDS
        with MemoryWatch(daemons, interval_s=60.0) as first, ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda at: abort(ours, range(at, share, 4)), range(4)))
        with MemoryWatch(daemons, interval_s=0.5) as memory, ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda at: abort(ours, range(share + at, ABORTS, 4)), range(4)))
        for name, daemon in daemons.items():
            wait_until_idle(daemon, idle[name])
        ours.embed(["somebody waits for this"])
    growth = memory.growth()
    print(
        f"\n{ABORTS:,} calls aborted: none in flight afterwards; after the first {share:,}"
        f" ({', '.join(f'{name} {mb:+.0f} MB' for name, mb in first.growth().items())}) grown by",
        ", ".join(f"{name} {megabytes:.1f} MB" for name, megabytes in growth.items()),
    )
    assert max(growth.values()) <= ABORT_GROWTH_MB_MAX
