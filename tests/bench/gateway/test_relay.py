"""What the gateway adds to a small passage: through it against straight to a daemon that answers at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from services.keys import KeyGrant, KeyStore
from tests.bench.gateway.instant import EVENTS
from tests.bench.load import Load, Outcome
from tests.bench.wrk import offered
from tests.processes import Running, running

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket, pytest.mark.timeout(300)]

DAEMONS = ("EMBEDD", "VECTORD", "CHATD", "DISTILL", "VALIDATORS")
BODY = '{"kind":"fill","artifact":{"order_id":"o-1","fills":[{"worker_id":"w-1","name":"A Name"}]}}'
ROUNDS = 3
SECONDS = 3.0

CPU_US_MAX = 150.0
"""Processor time of the gateway for one small passage, keys, limits, metrics and logs included."""

RATE_RATIO_MIN = 0.1
"""Of what the stub does alone, which is a parser and two writes; both share the machine with the load."""

ADDED_P50_MS_MAX = 1.0
STREAM_CPU_US_MAX = 600.0


@dataclass(frozen=True)
class Door:
    """A gateway with the same stub for every daemon, and a key with limits that nobody reaches."""

    gateway: Running
    stub: Running
    key: str

    def load(self, path: str, *, straight: bool = False, connections: int = 32) -> Load:
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        url = self.stub.url if straight else self.gateway.url
        return Load(url + path, [BODY], headers, connections, SECONDS)

    def cpu_s(self) -> float:
        times = psutil.Process(self.gateway.process.pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def door(folder: Path) -> Iterator[Door]:
    grant = KeyGrant(name="bench", rpm=10**9, tpm=10**9)
    key, _ = KeyStore(folder / "data").create(grant)
    with running("tests.bench.gateway.instant", folder) as stub:
        env = {f"GATEWAY_{name}_URLS": stub.url for name in DAEMONS}
        with running("gateway", folder, env=env) as gateway:
            yield Door(gateway, stub, key)


def measured(it: Door, load: Load, folder: Path) -> tuple[Outcome, float]:
    """The round in the middle, and the gateway's processor time for a request, in microseconds."""
    offered(load, folder)  # connections, and what is made at the first use
    before = it.cpu_s()
    rounds = [offered(load, folder) for _ in range(ROUNDS)]
    used = it.cpu_s() - before
    return Outcome.median(rounds), used / sum(each.requests for each in rounds) * 1e6


@pytest.mark.parametrize("path", ["/v1/validate", "/v1/chat/completions", "/v1/collections/notes/search"])
def test_a_small_passage(tmp_path: Path, path: str) -> None:
    with door(tmp_path) as it:
        straight = offered(it.load(path, straight=True), tmp_path)
        through, cpu_us = measured(it, it.load(path), tmp_path)
    ratio = through.rate / straight.rate
    print(f"\n{path}: {through}, {cpu_us:.0f} µs of processor each; straight {straight}; ratio {ratio:.2f}")
    assert cpu_us <= CPU_US_MAX
    assert ratio >= RATE_RATIO_MIN


def test_one_connection(tmp_path: Path) -> None:
    with door(tmp_path) as it:
        straight = offered(it.load("/v1/validate", straight=True, connections=1), tmp_path)
        through, _ = measured(it, it.load("/v1/validate", connections=1), tmp_path)
    added_ms = through.p50_ms - straight.p50_ms
    print(f"\n1 connection: {through}; straight {straight}; added {added_ms:.3f} ms at p50")
    assert added_ms <= ADDED_P50_MS_MAX


def test_a_stream(tmp_path: Path) -> None:
    with door(tmp_path) as it:
        through, cpu_us = measured(it, it.load("/v1/collections/stream/search"), tmp_path)
    print(f"\n{EVENTS} events a stream: {through}, {cpu_us:.0f} µs of processor each")
    assert cpu_us <= STREAM_CPU_US_MAX
