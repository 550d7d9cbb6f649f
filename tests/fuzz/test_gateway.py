"""Whatever bytes are sent to the gateway, it goes on serving, and what it answers is HTTP in its own words.

`FUZZ_S` is how long random input goes on: 8 seconds with the other tests, half an hour in `make fuzz`.
"""

import os
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import httptools
import httpx
import pytest

from schemas.errors import ErrorEnvelope
from services.keys import KeyGrant, KeyStore
from tests.integration.security.raw import Witness, connected, read_answer, witness
from tests.processes import Running, running

pytestmark = pytest.mark.enable_socket

SHORT_S: Final = 8.0
LONG_S: Final = 1800.0
READ_S: Final = 0.05
BYTES_MAX: Final = 200_000
lengths = pytest.mark.parametrize("default_s", [SHORT_S, pytest.param(LONG_S, marks=pytest.mark.fuzz)])

METHODS: Final = (
    b"GET",
    b"POST",
    b"PUT",
    b"DELETE",
    b"HEAD",
    b"OPTIONS",
    b"PATCH",
    b"CONNECT",
    b"TRACE",
    b"get",
    b"",
)
PATHS: Final = (
    *(
        b"/v1/chat/completions",
        b"/v1/embeddings",
        b"/v1/models",
        b"/v1/models/a",
        b"/healthz",
        b"/v1/validate",
    ),
    *(b"/v1/collections/a/search", b"/v1/collections/%2e%2e", b"/v1/../v1/models", b"//", b"*", b"/", b""),
    *(b"http://evil/v1/models", b"/v1/models?%00", b"/v1/models#a", b"/%ff%fe", b"/v1/iterate", b"/\xc3\xa9"),
)
VERSIONS: Final = (
    b"HTTP/1.1",
    b"HTTP/1.1",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/1.1 ",
    b"HTP/1.1",
    b"",
)
NAMES: Final = (
    *(
        b"content-length",
        b"transfer-encoding",
        b"host",
        b"connection",
        b"expect",
        b"upgrade",
        b"content-type",
    ),
    *(b"authorization", b"x-api-key", b"x-request-id", b"traceparent", b"x-stillhouse-internal", b"te"),
    *(b"content-encoding", b"origin", b"x-stillhouse-roles", b"trailer", b"", b"a b", b"\x00", b"x" * 300),
)
VALUES: Final = (
    *(
        b"0",
        b"2",
        b"5",
        b"-1",
        b"99999999999999999999",
        b"chunked",
        b"identity",
        b"gzip",
        b"close",
        b"keep-alive",
    ),
    *(
        b"upgrade",
        b"h2c",
        b"websocket",
        b"100-continue",
        b"application/json",
        b"Bearer sh-no",
        b"a\x00b",
        b"\xff",
    ),
    *(b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"a" * 200, b"a\r\n b", b"\t", b"", b"x" * 70_000),
)
COLONS: Final = (b": ", b": ", b": ", b":", b" : ", b"")
BODIES: Final = (
    *(
        b"",
        b"{}",
        b"[" * 5_000,
        b'{"model":"m","input":"a"}',
        b"0\r\n\r\n",
        b"2\r\n{}\r\n0\r\n\r\n",
        b"\x00" * 100,
    ),
    *(
        b"ffffffffffffffff\r\n",
        b'{"retrieve":1}',
        b"5;" + b"a" * 900 + b"\r\nhello\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ),
)


class House:
    def __init__(self, gateway: Running, daemon: Witness, key: str) -> None:
        self.gateway = gateway
        self.daemon = daemon
        self.authorization = f"authorization: Bearer {key}".encode()
        self.statuses: Counter[int] = Counter()

    def ask(self, data: bytes, rng: random.Random) -> None:
        """Send it, in pieces now and then, and read what comes. Raises `AssertionError` for what is wrong."""
        with connected(self.gateway.url) as connection:
            for _ in range(rng.choice((0, 0, 0, 2))):  # what follows is then one of many on its connection
                connection.sendall(self.plain(b"{}"))
                assert read_answer(connection).startswith(b"HTTP/1.1 200")
            with suppress(ConnectionResetError, BrokenPipeError):
                for piece in pieces_of(data, rng):
                    connection.sendall(piece)
            received = read_for_a_while(connection)
        if b"HEAD" not in data:  # an answer to it has a length and no body: it cannot be told from the next
            self._check(received)

    def plain(self, body: bytes) -> bytes:
        """A request that nothing is wrong with."""
        head = (b"POST /v1/chat/completions HTTP/1.1", b"host: x", self.authorization)
        return b"\r\n".join((*head, b"content-length: %d" % len(body), b"", body))

    def _check(self, received: bytes) -> None:
        for status, body in answers_in(received):
            self.statuses[status] += 1
            assert status < 500 or status in (502, 503, 504), body
            if body and status >= 400:
                ErrorEnvelope.model_validate_json(body)

    def check_that_it_serves(self) -> None:
        assert self.gateway.process.poll() is None, self.gateway.text()[-5000:]
        answer = httpx.get(f"{self.gateway.url}/healthz", timeout=30, trust_env=False)
        assert answer.json() == {"status": "ok"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    key, _ = KeyStore(folder / "data").create(KeyGrant(name="fuzz"))
    with witness() as daemon:
        env = {f"GATEWAY_{name}_URLS": daemon.url for name in ("CHATD", "VECTORD", "VALIDATORS", "DISTILL")}
        with running("gateway", folder, env=env) as gateway:
            yield House(gateway, daemon, key)


def read_for_a_while(connection: socket.socket) -> bytes:
    connection.settimeout(READ_S)
    received = b""
    with suppress(TimeoutError, ConnectionResetError):
        while piece := connection.recv(1 << 20):
            received += piece
    return received


class _Answers:
    """Takes answers apart, by httptools' callbacks."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.found: list[tuple[int, bytes]] = []
        self._body = b""

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self.found.append((self.parser.get_status_code(), self._body))


def answers_in(received: bytes) -> list[tuple[int, bytes]]:
    """The whole answers among what was received."""
    answers = _Answers()
    with suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
        answers.parser.feed_data(received)
    assert not received or received.startswith(b"HTTP/1.1 "), received[:200]
    return answers.found


def pieces_of(data: bytes, rng: random.Random) -> list[bytes]:
    if rng.random() < 0.7 or not data:
        return [data]
    at = rng.randrange(len(data))
    return [data[:at], data[at:]]


def request(rng: random.Random, house: House) -> bytes:
    """Something like a request: each part well-formed, mostly."""
    lines = [
        b" ".join(
            (
                rng.choice(METHODS[:4] if rng.random() < 0.8 else METHODS),
                rng.choice(PATHS),
                rng.choice(VERSIONS if rng.random() < 0.2 else VERSIONS[:1]),
            )
        )
    ]
    if rng.random() < 0.9:
        lines.append(b"host: x")
    if rng.random() < 0.6:
        lines.append(house.authorization)
    body = rng.choice(BODIES)
    if rng.random() < 0.5:
        lines.append(b"content-length: %d" % len(body))
    extra = rng.choice((0, 0, 0, 0, 1, 2, 300 if rng.random() < 0.05 else 3))
    lines += [rng.choice(NAMES) + rng.choice(COLONS) + rng.choice(VALUES) for _ in range(extra)]
    return rng.choice((b"\r\n",) * 20 + (b"\n",)).join([*lines, b"", b""]) + body


def spoiled(rng: random.Random, data: bytes) -> bytes:
    """With a few bytes other, gone or twice."""
    for _ in range(rng.choice((0, 0, 1, 3))):
        at = rng.randrange(len(data) + 1)
        data = data[:at] + rng.randbytes(rng.randrange(3)) + data[at + rng.randrange(4) :]
    return data


def hostile(rng: random.Random, house: House) -> bytes:
    if rng.random() < 0.05:
        return rng.randbytes(rng.choice((1, 10, 1000, 80_000)))
    if rng.random() < 0.2:
        return spoiled(rng, house.plain(rng.choice(BODIES)))
    row = b"".join(request(rng, house) for _ in range(rng.choice((1, 1, 1, 2, 5))))
    return spoiled(rng, row)[:BYTES_MAX]


@lengths
def test_it_serves_on_whatever_comes(house: House, default_s: float) -> None:
    seconds = float(os.environ.get("FUZZ_S", default_s))
    seed = int(os.environ.get("FUZZ_SEED", "20261122"))
    rng = random.Random(seed)
    sent = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = hostile(rng, house)
        try:
            house.ask(data, rng)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, request {sent}: {data[:2000]!r}\n{error}") from error
        sent += 1
        if sent % 50 == 0:
            house.check_that_it_serves()
    house.check_that_it_serves()
    for _, headers, _ in house.daemon.seen:
        assert headers.get("x-stillhouse-principal") == "fuzz"  # nobody else got through
        assert "x-stillhouse-internal" not in headers
        assert "x-stillhouse-roles" not in headers
    said = house.gateway.text()
    assert "Traceback" not in said, said[said.index("Traceback") - 500 :][:3000]
    print(f"{sent} pieces sent, answers {dict(house.statuses)}, {len(house.daemon.seen)} passed on")
