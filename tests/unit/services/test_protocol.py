"""What comes in that is no HTTP, or too much of it, over a real socket."""

import asyncio
import socket
import traceback
from collections.abc import Callable
from typing import cast

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from schemas.errors import ErrorEnvelope
from services.protocol import Direct, DirectExchange, Doors, EnvelopeProtocol
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.enable_socket]

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"


async def served(scope: Scope, receive: Receive, send: Send) -> None:
    await Request(scope, receive).body()
    await PlainTextResponse("served")(scope, receive, send)


async def answer_to(data: bytes, direct: Direct | None = None) -> bytes:
    config = uvicorn.Config(served, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: EnvelopeProtocol(config=config, server_state=state, app_state={}, direct=direct),
        "127.0.0.1",
        0,
    )
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for start in range(0, len(data), 8192):  # as it would come over a network
            writer.write(data[start : start + 8192])
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
    return answer


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"HELLO\r\n\r\n", "invalid_http"),
        (b"BREW / HTTP/1.1\r\nhost: x\r\n\r\n", "invalid_http"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n", "invalid_http"),
        (HEAD + b"x: " + b"a" * 70_000, "head_too_large"),
        (b"GET /" + b"a" * 70_000, "head_too_large"),
    ],
)
async def test_what_is_no_http_is_refused_in_the_envelope(data: bytes, code: str) -> None:
    head, _, body = (await answer_to(data)).partition(b"\r\n\r\n")
    error = ErrorEnvelope.model_validate_json(body).error
    assert head.startswith(b"HTTP/1.1 400 ")
    assert (error.type, error.code) == ("invalid_request_error", code)
    assert f"x-request-id: {error.request_id}".encode() in head


async def test_a_large_body_does_not_count_as_head() -> None:
    data = HEAD + b"content-length: 200000\r\n\r\n" + b"a" * 200_000
    assert (await answer_to(data)).endswith(b"served")


class Echo:
    """A door that answers at once with what it was sent."""

    body_bytes_max = 100_000

    def __init__(self, path: str = "/echo") -> None:
        self.path = path
        self.depths: list[int] = []

    def take(self, exchange: DirectExchange) -> bool:
        self.depths.append(len(traceback.extract_stack()))
        if exchange.body == b"declined":
            return False
        exchange.respond(200, [(b"x-door", b"1")], exchange.body)
        return True


def post(path: str, body: bytes, *lines: bytes) -> bytes:
    head = (b"POST %b HTTP/1.1" % path.encode(), b"host: x", *lines)
    return b"\r\n".join([*head, b"content-length: %d" % len(body), b"", body])


CLOSE = b"connection: close"


async def test_a_door_is_offered_what_fits_it_and_nothing_else() -> None:
    echo = Echo()
    assert (await answer_to(post("/echo", b"hello", CLOSE), echo)).endswith(b"\r\n\r\nhello")
    large = b"x" * 100_000  # far more than uvicorn reads ahead of whoever asks for a body
    assert (await answer_to(post("/echo", large, CLOSE), echo)).endswith(large)
    assert len(echo.depths) == 2
    for other in (
        post("/echo", b"x" * 100_001, CLOSE),
        post("/other", b"x", CLOSE),
        post("/echo", b"x", CLOSE).replace(b"POST", b"PUT"),
        post("/echo", b"x", CLOSE, b"expect: 100-continue"),
        b"POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ):
        assert (await answer_to(other, echo)).endswith(b"served")
    assert len(echo.depths) == 2
    assert (await answer_to(post("/echo", b"declined", CLOSE), echo)).endswith(b"served")


async def test_requests_in_a_row_do_not_pile_up() -> None:
    echo = Echo()
    row = b"".join(post("/echo", b"%d" % number) for number in range(1500))
    first = post("/echo", b"declined")  # takes a while; meanwhile the others wait
    answer = await answer_to(first + row + post("/echo", b"last", CLOSE), echo)
    assert answer.count(b"HTTP/1.1 200") == 1502
    assert answer.endswith(b"last")
    assert max(echo.depths) - min(echo.depths) < 20


async def test_who_does_not_read_is_not_answered_for_ever() -> None:
    echo = Echo()
    config = uvicorn.Config(served, lifespan="off", log_config=None)
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: EnvelopeProtocol(config=config, server_state=ServerState(), app_state={}, direct=echo),
        "127.0.0.1",
        0,
    )
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=1024)
        writer.transport.set_write_buffer_limits(high=0)
        data = post("/echo", b"x" * 90_000)
        held_up = False
        for _ in range(500):  # 45 MB
            writer.write(data)
            try:
                await asyncio.wait_for(writer.drain(), 1)
            except TimeoutError:
                held_up = True
                break
        assert held_up
        writer.transport.abort()


async def test_who_leaves_is_gone_for_the_request_that_is_answered_too() -> None:
    began, told = asyncio.Event(), asyncio.Event()

    async def waits(_: Scope, receive: Receive, __: Send) -> None:
        began.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    config = uvicorn.Config(waits, lifespan="off", log_config=None)
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: EnvelopeProtocol(config=config, server_state=ServerState(), app_state={}), "127.0.0.1", 0
    )
    async with server, asyncio.timeout(30):
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 3)  # two wait behind the first
        await began.wait()
        writer.close()
        await told.wait()


async def test_only_so_much_is_held_for_doors() -> None:
    echo = Echo()
    doors = Doors([echo], held_bytes_max=150)
    config = uvicorn.Config(served, lifespan="off", log_config=None)
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: EnvelopeProtocol(config=config, server_state=ServerState(), app_state={}, direct=doors),
        "127.0.0.1",
        0,
    )
    address = server.sockets[0].getsockname()
    async with server, asyncio.timeout(30):
        data = post("/echo", b"x" * 100, CLOSE)
        held, leaving, more = [await asyncio.open_connection(*address) for _ in range(3)]
        held[1].write(data[:-1])
        await until(lambda: doors.held_bytes == 100)
        more[1].write(data[:-1])
        leaving[1].write(post("/echo", b"x" * 50)[:-1])
        await until(lambda: doors.held_bytes == 150)
        leaving[1].close()
        await until(lambda: doors.held_bytes == 100)
        for connection, end in ((more, b"served"), (held, b"x" * 100)):
            connection[1].write(data[-1:])
            assert (await connection[0].read()).endswith(end)
            connection[1].close()
        assert doors.held_bytes == 0
    assert len(echo.depths) == 1


class Looks:
    """An event loop that only keeps what was asked of it for later."""

    def __init__(self) -> None:
        self.planned: list[tuple[Callable[..., None], tuple[object, ...]]] = []

    def call_later(self, _: float, callback: Callable[..., None], *args: object) -> "Looks":
        self.planned.append((callback, args))
        return self

    def cancel(self) -> None:
        self.planned.clear()

    def look(self) -> None:
        callback, args = self.planned.pop()
        callback(*args)


class Full:
    """A transport that holds `unsent` bytes."""

    def __init__(self) -> None:
        self.unsent = 100_000
        self.aborted = False

    def get_extra_info(self, _: str, default: object = None) -> object:
        return default

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True


async def test_only_who_takes_nothing_at_all_is_cut_off() -> None:
    config = uvicorn.Config(served, lifespan="off", log_config=None)
    looks, transport = Looks(), Full()
    protocol = EnvelopeProtocol(config=config, server_state=ServerState(), app_state={}, _loop=looks)
    protocol.connection_made(cast("asyncio.Transport", transport))
    protocol.pause_writing()
    transport.unsent = 300_000  # what was under way came too
    looks.look()
    for _ in range(5):
        transport.unsent -= 1
        looks.look()
    assert not transport.aborted
    protocol.resume_writing()
    assert not looks.planned
    protocol.pause_writing()
    looks.look()
    looks.look()
    assert transport.aborted


def test_doors_are_found_as_the_router_finds_routes() -> None:
    doors = Doors([Echo("/a"), Echo("/b/{name}/c"), Echo("/d/{rest:path}")])
    found = {path: door.path for path in ("/a", "/b/x/c", "/d/x/y") if (door := doors.find(path))}
    assert found == {"/a": "/a", "/b/x/c": "/b/{name}/c", "/d/x/y": "/d/{rest:path}"}
    assert [doors.find(path) for path in ("/", "/a/", "/b//c", "/b/x/y/c", "/b/x/c/")] == [None] * 5


class Clock(Looks):
    """An event loop whose time is set by hand; what is planned is told in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.delays: list[float] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., None], *args: object) -> "Looks":
        self.delays.append(delay)
        return super().call_later(delay, callback, *args)


class Quiet(Full):
    """A transport to a client that is told its answers."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, _: bytes) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


async def test_a_connection_is_kept_for_so_long_after_its_last_answer() -> None:
    config = uvicorn.Config(served, lifespan="off", log_config=None, timeout_keep_alive=10)
    clock, transport = Clock(), Quiet()
    protocol = EnvelopeProtocol(
        config=config, server_state=ServerState(), app_state={}, direct=Echo(), _loop=clock
    )
    protocol.connection_made(cast("asyncio.Transport", transport))
    for now in (0.0, 4.0, 8.0):
        clock.now = now
        protocol.data_received(post("/echo", b"hello"))
    clock.now = 10.0
    clock.look()
    assert clock.delays == [10, 8.0]  # one timer, set again for what is left
    clock.now = 17.0
    protocol.data_received(post("/echo", b"hello")[:-1])
    clock.now = 18.0
    clock.look()
    assert not clock.planned  # nobody is idle who is in the middle of a request
    clock.now = 30.0
    protocol.data_received(b"o")
    clock.now = 40.0
    assert not transport.closed
    clock.look()
    assert transport.closed


class Connected(Quiet):
    """A transport of a real socket."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self.unsent = 0
        self._connection = connection

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._connection if name == "socket" else default


async def test_a_connection_is_not_closed_upon_a_request_that_nobody_has_read() -> None:
    config = uvicorn.Config(served, lifespan="off", log_config=None)
    clock = Clock()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = Connected(ours)
        protocol = EnvelopeProtocol(config=config, server_state=ServerState(), app_state={}, _loop=clock)
        protocol.connection_made(cast("asyncio.Transport", transport))
        ours.settimeout(0)
        theirs.sendall(b"GET /")
        protocol.shutdown()
        closed = [transport.closed]
        ours.recv(100)
        clock.look()
        closed.append(transport.closed)
        assert closed == [False, True]
        theirs.settimeout(0)
        assert theirs.recv(100) == b""  # they know before the loop comes to close
