"""An Ollama on a real socket that does what a test's script says, one step for each call of `/api/embed`.

Without a script it answers well: the same text always gives the same unit vector. Texts can be at fault too:
those with `too long` in them are refused as Ollama refuses them, those with `crash` or `nan` fail their list.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from embedd.backends import FakeBackend
from embedd.engine import PROBES
from tests.stubs.listener import Listener


class Reply(NamedTuple):
    """What goes over the wire. `status` 0: the connection is reset instead."""

    status: int
    body: bytes


Step = Callable[["OllamaStub", Sequence[str]], Awaitable[Reply]]


@dataclass
class OllamaStub:
    """`calls` lists the texts of each call, the self-check's left out; `heads` the head of every request.

    `port` is kept over a restart.
    """

    model: str = "stub:latest"
    digest: str = "sha256:a"
    dimension: int = 8
    port: int = 0
    script: deque[Step] = field(default_factory=deque)
    calls: list[list[str]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    tags_hang: bool = False
    in_flight: int = 0
    in_flight_max: int = 0
    cut_off: int = 0
    batches_differ: bool = False

    def __post_init__(self) -> None:
        self._listener = Listener(self._exchange)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def vector(self, text: str, digest: str | None = None) -> list[float]:
        fake = FakeBackend(dimension=self.dimension, digest=digest or self.digest)
        return [float(number) for number in fake.vector(text)]

    async def start(self) -> None:
        self.port = await self._listener.start(self.port)

    async def stop(self) -> None:
        """Die: no new connections, and those there are break off."""
        await self._listener.stop()

    # --- HTTP -------------------------------------------------------------------------------

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _connection: int
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        target = head.split(" ", 2)[1]
        length = next(
            (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0
        )
        body = await reader.readexactly(length)
        work = asyncio.ensure_future(self._answer(target, body))
        gone = asyncio.ensure_future(reader.read(1))  # our client does not pipeline: bytes here mean its end
        try:
            await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.cut_off += 1
                return False
            reply = work.result()
        finally:
            work.cancel()
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await gone
        if reply.status == 0:
            writer.transport.abort()
            return False
        writer.write(
            b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (reply.status, len(reply.body), reply.body)
        )
        await writer.drain()
        return True

    async def _answer(self, target: str, body: bytes) -> Reply:
        if target == "/api/tags":
            if self.tags_hang:
                await asyncio.Event().wait()
            return said(200, {"models": [{"name": self.model, "digest": self.digest}]})
        if target != "/api/embed":
            return said(404, {"error": "404 page not found"})
        request = json.loads(body)
        texts: list[str] = request["input"]
        if request["model"] != self.model.removesuffix(":latest"):
            return said(404, {"error": f"model '{request['model']}' not found"})
        if set(texts) <= set(PROBES):
            return self.well(texts, spoilt=self.batches_differ and len(texts) > 1)
        self.calls.append(list(texts))
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            step = self.script.popleft() if self.script else answers
            return await step(self, texts)
        finally:
            self.in_flight -= 1

    def well(self, texts: Sequence[str], *, spoilt: bool = False) -> Reply:
        if any("too long" in text for text in texts):
            return said(400, {"error": "the input length exceeds the context length"})
        if any("crash" in text for text in texts):
            return said(500, {"error": "do embedding request: EOF"})
        vectors = [self.vector(f"{text} spoilt" if spoilt else text) for text in texts]
        for vector, text in zip(vectors, texts, strict=True):
            if "nan" in text:
                vector[0] = float("nan")
        tokens = sum(len(text) for text in texts)
        return said(200, {"embeddings": vectors, "prompt_eval_count": tokens})


def said(status: int, body: Any) -> Reply:
    return Reply(status, json.dumps(body).encode())


@contextlib.asynccontextmanager
async def stubs(*servers: OllamaStub) -> AsyncIterator[None]:
    """Servers that run for the length of a block."""
    try:
        for server in servers:
            await server.start()
        yield
    finally:
        for server in servers:
            await server.stop()


# --- steps of a script --------------------------------------------------------------------------


async def answers(stub: OllamaStub, texts: Sequence[str]) -> Reply:
    return stub.well(texts)


def when(gate: asyncio.Event, then: Step = answers) -> Step:
    """Nothing until the gate opens."""

    async def step(stub: OllamaStub, texts: Sequence[str]) -> Reply:
        await gate.wait()
        return await then(stub, texts)

    return step


def fails(status: int, error: str) -> Step:
    async def step(_: OllamaStub, __: Sequence[str]) -> Reply:
        return said(status, {"error": error})

    return step


async def resets(_: OllamaStub, __: Sequence[str]) -> Reply:
    return Reply(0, b"")


async def is_short(stub: OllamaStub, texts: Sequence[str]) -> Reply:
    return said(200, {"embeddings": [stub.vector(text) for text in texts[1:]], "prompt_eval_count": 1})


async def has_another_dimension(stub: OllamaStub, texts: Sequence[str]) -> Reply:
    wider = OllamaStub(dimension=stub.dimension * 2)
    return said(200, {"embeddings": [wider.vector(text) for text in texts], "prompt_eval_count": 1})


async def is_zero(stub: OllamaStub, texts: Sequence[str]) -> Reply:
    return said(200, {"embeddings": [[0.0] * stub.dimension for _ in texts], "prompt_eval_count": 1})


async def is_no_json(_: OllamaStub, __: Sequence[str]) -> Reply:
    return Reply(200, b"<html>")


def is_replaced(digest: str) -> Step:
    """Another model is pulled under the name while this call is under way, and answers it."""

    async def step(stub: OllamaStub, texts: Sequence[str]) -> Reply:
        stub.digest = digest
        return stub.well(texts)

    return step
