"""Loads a server from a process of its own: a number of connections, each sending as soon as it is answered.

`python -m tests.bench.load PLAN` reads a `Load` as JSON and prints an `Outcome` as JSON.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self, cast
from urllib.parse import urlsplit

import httptools
import orjson
import uvloop

from tests.processes import ROOT

NUMBER: Final = "#NUMBER#"
"""Stands in a body for a number that no other request of the load has."""

GRACE_S: Final = 30.0


@dataclass(frozen=True)
class Load:
    """What to send: the bodies in turn, over and over, for `seconds`."""

    url: str
    bodies: Sequence[str]
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    connections: int = 32
    seconds: float = 4.0

    @property
    def numbered(self) -> bool:
        return any(NUMBER in body for body in self.bodies)


@dataclass(frozen=True)
class Outcome:
    """What came of it. `failures` are answers other than 2xx and connections that broke."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failures: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @classmethod
    def median(cls, rounds: Sequence[Self]) -> Self:
        """The round in the middle by rate. Raises `AssertionError` if a request of any round failed."""
        assert not any(each.failures for each in rounds), rounds
        return sorted(rounds, key=lambda each: each.rate)[len(rounds) // 2]

    def __str__(self) -> str:
        return f"{self.rate:,.0f}/s (p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms)"


def generate(load: Load, folder: Path) -> Outcome:
    """Load a server from another process; its plan lies in `folder`."""
    plan = folder / "load.json"
    plan.write_bytes(orjson.dumps(asdict(load)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.load", str(plan)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        timeout=load.seconds + 2 * GRACE_S,
        check=True,
    )
    return Outcome(**orjson.loads(done.stdout))


class _Source:
    """The requests, and the times of their answers."""

    def __init__(self, load: Load) -> None:
        url = urlsplit(load.url)
        lines = [f"POST {url.path} HTTP/1.1", f"host: {url.netloc}"]
        lines += [f"{name}: {value}" for name, value in load.headers.items()]
        self._head = "\r\n".join([*lines, "content-length: "]).encode()
        self._bodies = [body.encode() for body in load.bodies]
        self._ready = None if load.numbered else [self._request(body) for body in self._bodies]
        self._sent = 0
        self.over = False
        self.times_s = array("d")
        self.failures = 0
        self.last = 0.0

    def _request(self, body: bytes) -> bytes:
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    def next(self) -> bytes:
        number = self._sent
        self._sent += 1
        if self._ready is not None:
            return self._ready[number % len(self._ready)]
        body = self._bodies[number % len(self._bodies)]
        return self._request(body.replace(NUMBER.encode(), b"%d" % number))

    def outcome(self, seconds: float) -> Outcome:
        cuts = statistics.quantiles(self.times_s, n=100) if len(self.times_s) > 1 else [0.0] * 99
        return Outcome(len(self.times_s), seconds, cuts[49] * 1000, cuts[98] * 1000, self.failures)


class _Caller(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._started = 0.0
        self._ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def send(self) -> None:
        assert self._transport is not None
        if self._source.over:
            self._ended.set()
            self._transport.close()
            return
        self._started = time.perf_counter()
        self._transport.write(self._source.next())

    async def run(self) -> None:
        self.send()
        await self._ended.wait()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._source.last = time.perf_counter()
        if 200 <= self._parser.get_status_code() < 300:
            self._source.times_s.append(self._source.last - self._started)
        else:
            self._source.failures += 1
        self.send()

    def connection_lost(self, _: Exception | None) -> None:
        if not self._ended.is_set():
            self._source.failures += 1
            self._ended.set()


async def _run(load: Load) -> Outcome:
    source = _Source(load)
    loop = asyncio.get_running_loop()
    url = urlsplit(load.url)
    assert url.hostname is not None
    assert url.port is not None
    callers: list[_Caller] = []
    async with asyncio.timeout(load.seconds + GRACE_S):
        for _ in range(load.connections):
            _, caller = await loop.create_connection(lambda: _Caller(source), url.hostname, url.port)
            callers.append(caller)
        started = time.perf_counter()
        loop.call_later(load.seconds, setattr, source, "over", True)
        await asyncio.gather(*(caller.run() for caller in callers))
    return source.outcome(source.last - started)


if __name__ == "__main__":
    plan = Load(**orjson.loads(Path(sys.argv[1]).read_bytes()))
    sys.stdout.buffer.write(orjson.dumps(asdict(uvloop.run(_run(plan)))))
