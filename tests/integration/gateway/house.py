"""A gateway on a real port in the test's own event loop, and daemons behind it that do as the test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import uvicorn

from gateway.app import create_app
from gateway.engine import Fleet
from gateway.settings import Settings
from services.daemon import Daemon
from services.protocol import DirectExchange, Door, Doors, EnvelopeProtocol
from services.testing import free_port
from tests.waiting import until

PATIENCE_S = 30.0
NAMES = ("embedd", "vectord", "chatd", "distill", "validators")


@dataclass(frozen=True)
class Asked:
    """A request as a daemon got it."""

    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        lines = self.head.rstrip().split(b"\r\n")[1:]
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


Script = Callable[[Asked, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Stub:
    """A daemon that runs a script for each request, and counts its connections."""

    script: Script
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    left: int = 0
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                asked = Asked(head, await reader.readexactly(length))
                self.asked.append(asked)
                await self.script(asked, reader, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the callback of asyncio's streams would report a cancelled task
        finally:
            self.left += 1
            writer.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def stub(script: Script) -> AsyncIterator[Stub]:
    it = Stub(script)
    server = await asyncio.start_server(it.connected, "127.0.0.1", 0)
    it.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield it
    finally:
        server.close()
        await it.close()


def whole(body: bytes, status: bytes = b"200 OK", *lines: bytes) -> bytes:
    """An answer of known length."""
    head = [b"HTTP/1.1 " + status, b"content-type: application/json", *lines]
    return b"\r\n".join([*head, b"content-length: %d" % len(body), b"", body])


def answers(data: bytes) -> Script:
    async def script(_: Asked, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return script


class _Watched:
    """A door that notes what it took."""

    def __init__(self, door: Door, taken: list[bool]) -> None:
        self.path, self.body_bytes_max = door.path, door.body_bytes_max
        self._door = door
        self._taken = taken

    def take(self, exchange: DirectExchange) -> bool:
        self._taken.append(self._door.take(exchange))
        return self._taken[-1]


class _WatchedDoors(Doors):
    def __init__(self, doors: Doors, taken: list[bool]) -> None:
        super().__init__([])
        self._doors = doors
        self._taken = taken

    def find(self, path: str) -> Door | None:
        door = self._doors.find(path)
        return None if door is None else _Watched(door, self._taken)


@dataclass(frozen=True)
class House:
    app: Daemon
    fleets: dict[str, Fleet]
    port: int
    taken: list[bool]
    """For each request that was offered to a short way, whether it took it."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=PATIENCE_S, trust_env=False)

    async def connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    @property
    def idle(self) -> bool:
        """Whether nothing is left of any request, anywhere."""
        replicas = [replica for fleet in self.fleets.values() for replica in fleet._replicas]
        return self.app.drain.in_flight == 0 and not any(
            replica.in_flight or cast("Any", replica.upstream)._bulkhead._inside for replica in replicas
        )


@asynccontextmanager
async def house(data: Path, urls: Sequence[str], **settings: Any) -> AsyncIterator[House]:
    """A gateway whose daemons of every name are the replicas at `urls`; it asks none for its health."""
    port = free_port()
    everyone: dict[str, Any] = {f"{name}_urls": tuple(urls) for name in NAMES}
    everyone["watch_interval_s"] = 3600.0
    app = create_app(Settings(data=data, port=port, **{**everyone, **settings}))
    assert isinstance(app.direct, Doors)
    taken: list[bool] = []
    protocol = partial(EnvelopeProtocol, direct=_WatchedDoors(app.direct, taken))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            port=port,
            http=cast("type[asyncio.Protocol]", protocol),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    running = asyncio.ensure_future(server.serve())
    await until(lambda: server.started)
    try:
        yield House(app, server.lifespan.state["fleets"], port, taken)
    finally:
        server.should_exit = True
        await running


def request(path: str, body: bytes, *lines: bytes) -> bytes:
    """A request by POST, as bytes."""
    head = [b"POST %b HTTP/1.1" % path.encode(), b"host: x", *lines]
    return b"\r\n".join([*head, b"content-length: %d" % len(body), b"", body])
