"""Heads that are known again: the answers are those of a server that reads each head anew."""

import asyncio
from typing import Any, cast

import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from services.protocol import DirectExchange, Doors, EnvelopeProtocol
from services.protocol.heads import HEAD_BYTES_MAX, HEADS_MAX, OF_THE_HEAD, Heads

BODY_BYTES_MAX = 40
Told = dict[str, Any]


async def ordinary(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(f"{scope['method']} {scope['path']} {body!r}")(scope, receive, send)


class Tells:
    """A door that tells what it is given, and declines what is said not to be for it."""

    path = "/echo"
    body_bytes_max = BODY_BYTES_MAX

    def __init__(self) -> None:
        self.told: list[tuple[Told, bytes]] = []
        self.looks = 0

    def take(self, exchange: DirectExchange) -> bool:
        own = ("state", "stillhouse.arrived_s")
        self.told.append(({k: v for k, v in exchange.scope.items() if k not in own}, exchange.body))
        if exchange.body == b"declined":
            return False
        exchange.respond(200, [(b"x-agent", exchange.in_head(self._agent))], exchange.body)
        return True

    def _agent(self, scope: Scope) -> bytes:
        self.looks += 1
        agents = [value for name, value in scope["headers"] if name == b"user-agent"]
        return b",".join(agents)


class Wire:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def get_extra_info(self, _: str, default: object = None) -> object:
        return default

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Forgetful(Heads):
    """Knows no head again."""

    def keep(self, data: bytes, scope: Scope, body: bytes, door: Any) -> None: ...


async def told_and_written(reads: list[bytes], heads: Heads) -> tuple[list[tuple[Told, bytes]], bytes, bool]:
    config = uvicorn.Config(ordinary, lifespan="off", log_config=None)
    config.load()
    door, wire = Tells(), Wire()
    doors = Doors([door])
    doors.heads = heads
    protocol = EnvelopeProtocol(config=config, server_state=ServerState(), app_state={}, direct=doors)
    protocol.connection_made(cast("asyncio.Transport", wire))
    for data in reads:
        if not wire.closed:
            protocol.data_received(data)
        for _ in range(12):  # what takes the ordinary way is answered meanwhile
            await asyncio.sleep(0)
    protocol.connection_lost(None)
    return door.told, wire.written, wire.closed


def without_ids(written: bytes) -> list[bytes]:
    return [
        line
        for line in written.split(b"\r\n")
        if not line.startswith((b"x-request-id", b'{"error"', b"date"))
    ]


def message(body: bytes, *lines: bytes, length: int | None = None, target: bytes = b"/echo") -> bytes:
    size = len(body) if length is None else length
    head = (b"POST %b HTTP/1.1" % target, b"host: x", *lines, b"content-length: %d" % size)
    return b"\r\n".join([*head, b"", body])


PLAIN = message(b"hello")
MESSAGES = (
    PLAIN,
    PLAIN,
    message(b"hello, hello"),
    message(b""),
    message(b"declined"),
    message(PLAIN[:BODY_BYTES_MAX]),  # a body that begins as a request does
    message(b"x" * (BODY_BYTES_MAX + 1)),
    message(b"hello", b"user-agent: one"),
    message(b"hello", b"connection: close"),
    message(b"hello", b"expect: 100-continue"),
    message(b"hello", b"x-request-id: mine"),
    message(b"hello", b"Content-Length: 5"),
    message(b"hello", length=7),
    message(b"hello", length=3),
    message(b"hello", target=b"/other"),
    message(b"hello", target=b"/echo?a=b"),
    PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    PLAIN.replace(b"POST", b"PUT"),
    PLAIN.replace(b"content-length: 5", b"Content-Length:5"),
    PLAIN.replace(b"content-length: 5", b"content-length: 05"),
    PLAIN.replace(b"content-length: 5", b"content-length: +5"),
    PLAIN.replace(b"\r\n", b"\n"),
    b"\r\n" + PLAIN,
    b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    message(b"0\r\n\r\n" + PLAIN, b"transfer-encoding: chunked"),
    b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\r\n",
    b"hello",
)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Messages in a row, read as they were sent, together, or in pieces."""
    reads = [PLAIN]
    for data in draw(st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=5)):
        how = draw(st.sampled_from(("alone", "alone", "with the last", "in two")))
        if how == "with the last":
            reads[-1] += data
        elif how == "in two":
            cut = draw(st.integers(0, len(data)))
            reads += [data[:cut], data[cut:]]
        else:
            reads.append(data)
    return [data for data in reads if data]


@settings(max_examples=300, deadline=None)
@given(streams())
def test_what_is_known_again_is_read_as_the_first_time(reads: list[bytes]) -> None:
    async def story() -> None:
        known = await told_and_written(reads, Heads())
        anew = await told_and_written(reads, Forgetful())
        assert known[0] == anew[0]
        assert without_ids(known[1]) == without_ids(anew[1])
        assert known[2] == anew[2]

    asyncio.run(story())


def taken(heads: Heads, data: bytes, body: bytes) -> Scope:
    """Keep the head of a request as a server does."""
    length = (b"content-length", b"%d" % len(body))
    scope = {**dict.fromkeys(OF_THE_HEAD), "headers": [(b"host", b"x"), length]}
    heads.keep(data, scope, body, Tells())
    return scope


def test_a_head_is_known_whatever_the_length_of_the_body() -> None:
    heads = Heads()
    taken(heads, PLAIN, b"hello")
    head = heads.find(message(b"x" * BODY_BYTES_MAX))
    assert head is not None
    found = head.begins(message(b"x" * BODY_BYTES_MAX))
    assert found is not None
    headers, body = found
    assert body == b"x" * BODY_BYTES_MAX
    assert headers == [(b"host", b"x"), (b"content-length", b"%d" % BODY_BYTES_MAX)]
    for other in (
        message(b"x" * (BODY_BYTES_MAX + 1)),
        message(b"hello", length=4),
        message(b"hello", length=6),
        PLAIN + PLAIN,
        PLAIN[:-1],
        PLAIN[: PLAIN.index(b"\r\n\r\n") + 2],
        message(b"hello", b"content-length: 5"),
        message(b"hello", b"x-more: 1"),
        message(b"hello", length=0),
        PLAIN.replace(b"5\r\n", b"\r\n"),
        PLAIN.replace(b"5\r\n", b"5 \r\n"),
        b"",
    ):
        assert head.begins(other) is None


def test_only_so_many_heads_of_only_so_many_bytes_are_kept() -> None:
    heads = Heads()
    large = message(b"hello", b"x-large: " + b"x" * HEAD_BYTES_MAX)
    taken(heads, large, b"hello")
    assert heads.find(large) is None
    for number in range(HEADS_MAX + 1):
        taken(heads, message(b"hello", b"x-number: %d" % number), b"hello")
    assert heads.find(message(b"hello", b"x-number: %d" % HEADS_MAX)) is not None
    assert heads.find(message(b"hello", b"x-number: 0")) is None


def test_a_door_looks_once_at_a_head_that_comes_again() -> None:
    async def story() -> None:
        config = uvicorn.Config(ordinary, lifespan="off", log_config=None)
        config.load()
        door, wires = Tells(), [Wire(), Wire()]
        doors = Doors([door])
        for wire in wires:
            protocol = EnvelopeProtocol(config=config, server_state=ServerState(), app_state={}, direct=doors)
            protocol.connection_made(cast("asyncio.Transport", wire))
            for body in (b"a", b"longer"):
                protocol.data_received(message(body, b"user-agent: one"))
            protocol.connection_lost(None)
        assert b"".join(wire.written for wire in wires).count(b"x-agent: one") == 4
        assert door.looks == 2  # at the first, which had to be read, and at the next, which was known

    asyncio.run(story())
