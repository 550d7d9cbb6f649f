"""Many streams at once, from a process of its own: are all tokens there, in order, and how late?

`python -m tests.bench.chat.streams PLAN` reads a `Plan` as JSON and prints an `Outcome` as JSON.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

import httptools
import orjson
import uvloop

from tests.bench.chat.upstream import RATE, TOKENS
from tests.processes import ROOT

GRACE_S: Final = 60.0


@dataclass(frozen=True)
class Plan:
    """`concurrent` streams at any moment, `streams` in all: a new one begins whenever its turn comes."""

    url: str
    body: str
    headers: dict[str, str]
    concurrent: int
    streams: int


@dataclass(frozen=True)
class Outcome:
    """`broken` streams lost or reordered a token, or did not end well.

    Times are from the provider's writing of a token to its arrival, and to the first token from the sending
    of the request.
    """

    broken: int
    first_p50_ms: float
    first_p99_ms: float
    token_p50_ms: float
    token_p99_ms: float

    def __str__(self) -> str:
        first = f"first token p50 {self.first_p50_ms:.2f} ms, p99 {self.first_p99_ms:.2f} ms"
        return f"{first}; each token p50 {self.token_p50_ms:.2f} ms, p99 {self.token_p99_ms:.2f} ms"


def stream(plan: Plan, folder: Path) -> Outcome:
    """Run a plan in another process; it lies in `folder`."""
    file = folder / "streams.json"
    file.write_bytes(orjson.dumps(asdict(plan)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.chat.streams", str(file)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        timeout=plan.streams / plan.concurrent * TOKENS / RATE + 2 * GRACE_S,
        check=True,
    )
    return Outcome(**orjson.loads(done.stdout))


class _Stream(asyncio.Protocol):
    """One connection, one stream."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._parser = httptools.HttpResponseParser(self)
        self._pending = b""
        self._sent_ns = 0
        self._transport: asyncio.Transport | None = None
        self.numbers: list[int] = []
        self.first_ms = 0.0
        self.late_ms: list[float] = []
        self.done = False
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class
        self._sent_ns = time.monotonic_ns()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        now = time.monotonic_ns()
        *events, self._pending = (self._pending + data).split(b"\n\n")
        for event in events:
            if event == b"data: [DONE]":
                self.done = True
                continue
            choices = orjson.loads(event.removeprefix(b"data: "))["choices"]
            if choices and (text := choices[0]["delta"].get("content")):
                number, _, sent_ns = text.strip().partition(":")
                if not self.numbers:
                    self.first_ms = (now - self._sent_ns) / 1e6
                self.numbers.append(int(number))
                self.late_ms.append((now - int(sent_ns)) / 1e6)

    def on_message_complete(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        self.ended.set()

    @property
    def whole(self) -> bool:
        return self.done and self.numbers == list(range(TOKENS))


async def _run(plan: Plan) -> Outcome:
    url = urlsplit(plan.url)
    assert url.hostname is not None
    assert url.port is not None
    host, port = url.hostname, url.port
    lines = [f"POST {url.path} HTTP/1.1", f"host: {url.netloc}", f"content-length: {len(plan.body)}"]
    lines += [f"{name}: {value}" for name, value in plan.headers.items()]
    request = ("\r\n".join(lines) + "\r\n\r\n" + plan.body).encode()
    loop = asyncio.get_running_loop()
    interval_s = TOKENS / RATE / plan.concurrent

    async def one(number: int) -> _Stream:
        await asyncio.sleep(number * interval_s)
        _, running = await loop.create_connection(lambda: _Stream(request), host, port)
        await running.ended.wait()
        return running

    streams = await asyncio.gather(*(one(number) for number in range(plan.streams)))
    # Those that began before there were enough of them beside them say nothing.
    first = statistics.quantiles((each.first_ms for each in streams[plan.concurrent :]), n=100)
    late = statistics.quantiles((ms for each in streams for ms in each.late_ms), n=100)
    broken = sum(not each.whole for each in streams)
    return Outcome(broken, first[49], first[98], late[49], late[98])


if __name__ == "__main__":
    plan = Plan(**orjson.loads(Path(sys.argv[1]).read_bytes()))
    sys.stdout.buffer.write(orjson.dumps(asdict(uvloop.run(_run(plan)))))
