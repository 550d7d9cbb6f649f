"""The small HTTP client against servers that behave in every way they can."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager

import pytest

from services.h1 import BUFFER_BYTES_MAX, BrokenOff, H1Client, NotConnected
from services.testing import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.enable_socket]

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[H1Client]:
    """A client of a server that runs `script` for each connection."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = H1Client(f"http://127.0.0.1:{port}/base", connect_timeout_s=1)
    try:
        yield client
    finally:
        client.close()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def request_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head + await reader.readexactly(length)


async def ask(client: H1Client, body: bytes = b"hello") -> tuple[int, bytes]:
    exchange = await client.send(b"POST", b"/x?y=1", [(b"x-a", b"b")], body)
    try:
        async with asyncio.timeout(5):
            return await exchange.head(), await exchange.body(bytes_max=1 << 26)
    finally:
        exchange.close()


async def test_a_connection_is_used_again() -> None:
    seen: list[bytes] = []
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            seen.append(await request_of(reader))
            writer.write(OK)

    async with serving(script) as client:
        assert [await ask(client) for _ in range(3)] == [(200, b"ok")] * 3
        assert list(await asyncio.gather(ask(client), ask(client))) == [(200, b"ok")] * 2
    assert connections == 2
    assert seen[0].startswith(b"POST /base/x?y=1 HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"\r\nx-a: b\r\n" in seen[0]
    assert seen[0].endswith(b"\r\n\r\nhello")


async def test_chunks_come_as_they_are_sent() -> None:
    more = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await more.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        await reader.read()

    async with serving(script) as client:
        exchange = await client.send(b"GET", b"/", [])
        assert await exchange.head() == 200
        assert await exchange.read() == b"one"
        more.set()
        assert await exchange.read() == b"two"
        assert await exchange.read() == b""


async def test_a_sink_is_given_everything_in_order_as_it_comes() -> None:
    more = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\none")
        await more.wait()
        writer.write(b"twosix")
        await reader.read()

    async with serving(script) as client:
        exchange = await client.send(b"GET", b"/", [])
        await exchange.head()
        got: list[bytes] = []

        def take(data: bytes) -> None:
            got.append(data)
            more.set()  # the rest is sent once the first of it was seen here

        await asyncio.wait_for(exchange.drain_into(take), 5)
        assert b"".join(got) == b"onetwosix"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfive5",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
        b"nonsense\r\n\r\n",
    ],
)
async def test_half_an_answer_is_never_a_whole_one(answer: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(answer)
        await writer.drain()

    async with serving(script) as client:
        with pytest.raises(BrokenOff):
            await ask(client)


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK)
        await writer.drain()

    async with serving(script) as client:
        for _ in range(3):
            assert await ask(client) == (200, b"ok")
            await asyncio.sleep(0.05)  # the close arrives


async def test_an_answer_that_says_close_ends_the_connection() -> None:
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
        await reader.read()

    async with serving(script) as client:
        assert [await ask(client) for _ in range(2)] == [(200, b"ok")] * 2
    assert connections == 2


async def test_nobody_listening_is_told_apart() -> None:
    client = H1Client(f"http://127.0.0.1:{free_port()}", connect_timeout_s=1)
    with pytest.raises(NotConnected, match="no connection to http://127"):
        await client.send(b"GET", b"/", [])


async def test_a_large_answer_waits_in_the_socket_until_it_is_read() -> None:
    size = 40 * 1024 * 1024
    sent = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
        await reader.read()

    async with serving(script) as client:
        exchange = await client.send(b"GET", b"/", [])
        await exchange.head()
        before = -1
        while before != sent:  # until the server is held up
            before = sent
            await asyncio.sleep(0.2)
        assert sent < size / 2
        received = 0
        while data := await exchange.read():
            assert len(data) < BUFFER_BYTES_MAX * 4
            received += len(data)
        assert received == size


async def test_a_sink_that_comes_late_gets_a_large_answer_whole() -> None:
    size = 8 * BUFFER_BYTES_MAX

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        await reader.read()

    async with serving(script) as client:
        exchange = await client.send(b"GET", b"/", [])
        await exchange.head()
        await asyncio.sleep(0.3)  # more has arrived than is kept for nobody
        got: list[int] = []
        await asyncio.wait_for(exchange.drain_into(lambda data: got.append(len(data))), 10)
        assert sum(got) == size


class Heard:
    """A receiver that keeps what it was told."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.data = b""
        self.over: asyncio.Future[BrokenOff | None] = asyncio.get_running_loop().create_future()

    def head_arrived(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status, self.headers = status, headers

    def body_arrived(self, data: bytes) -> None:
        self.data += data

    def finished(self) -> None:
        self.over.set_result(None)

    def failed(self, error: BrokenOff) -> None:
        self.over.set_result(error)

    async def outcome(self) -> BrokenOff | None:
        return await asyncio.wait_for(self.over, 30)


async def test_a_receiver_is_told_of_an_answer_where_a_connection_is_idle() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await request_of(reader)
            writer.write(OK)
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")

    async with serving(script) as client:
        heard = Heard()
        assert client.start(b"POST", b"/", [], b"", heard) is None
        assert await ask(client) == (200, b"ok")
        assert client.start(b"POST", b"/", [], b"", heard) is not None
        assert client.start(b"POST", b"/", [], b"", Heard()) is None  # it is in use
        assert heard.status == 0
        assert await heard.outcome() is None
        assert (heard.status, heard.headers, heard.data) == (200, [(b"content-length", b"2")], b"ok")
        broken = Heard()
        assert client.start(b"POST", b"/", [], b"", broken) is not None
        assert isinstance(await broken.outcome(), BrokenOff)
        assert broken.data == b"half"


@pytest.mark.parametrize(
    "second", [OK, b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 2", b"what"]
)
async def test_a_second_answer_is_no_answer_to_the_next_request(second: bytes) -> None:
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await request_of(reader)
        writer.write(OK + (second if connections == 1 else b""))
        await reader.read()

    async with serving(script) as client:
        with pytest.raises(BrokenOff):
            await ask(client)
        assert await ask(client) == (200, b"ok")
    assert connections == 2


async def test_announcements_are_not_the_answer() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
            await writer.drain()
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)

    async with serving(script) as client:
        for _ in range(2):
            exchange = await client.send(b"POST", b"/", [])
            assert await exchange.head() == 200
            assert exchange.headers == [(b"content-length", b"2")]
            assert await exchange.body(bytes_max=10) == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" + b"x-y: %b\r\n" % (b"z" * 1000) * 1000,
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nxyz",
        b"HTTP/1.1 999 What\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end of the connection",
    ],
)
async def test_answers_of_other_kinds_count_as_broken_off(answer: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(answer)
        await writer.drain()
        if b"until" not in answer:
            await reader.read()

    async with serving(script) as client:
        with pytest.raises(BrokenOff):
            await ask(client)


async def test_a_connection_that_was_held_up_is_read_by_the_next() -> None:
    size = BUFFER_BYTES_MAX + 100_000

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        await request_of(reader)
        writer.write(OK)
        await reader.read()

    async with serving(script) as client:
        exchange = await client.send(b"GET", b"/", [])
        async with asyncio.timeout(30):
            while exchange._buffered <= BUFFER_BYTES_MAX and not exchange._done:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)
            assert len(await exchange.body(bytes_max=2 * size)) == size
        exchange.close()
        assert await ask(client) == (200, b"ok")


async def test_giving_up_closes_the_connection() -> None:
    left = asyncio.Event()

    async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await request_of(reader)
        assert await reader.read() == b""
        left.set()

    async with serving(script) as client:
        exchange = await client.send(b"GET", b"/", [])
        exchange.close()
        await asyncio.wait_for(left.wait(), 5)


async def test_a_body_beyond_its_limit_is_refused() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b"x" * 100)
        await reader.read()

    async with serving(script) as client:
        exchange = await client.send(b"GET", b"/", [])
        with pytest.raises(BrokenOff, match="more than 10 bytes"):
            await exchange.body(bytes_max=10)


async def test_closing_ends_what_is_still_connecting() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):  # it accepts none: there is no room for more, and who comes hears nothing
            other = stack.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(server.getsockname())
        client = H1Client(f"http://127.0.0.1:{server.getsockname()[1]}", connect_timeout_s=3600)
        sending = asyncio.ensure_future(client.send(b"GET", b"/", ()))
        await asyncio.sleep(0.2)
        assert not sending.done()
        client.close()
        with pytest.raises(NotConnected):
            await asyncio.wait_for(sending, 30)
