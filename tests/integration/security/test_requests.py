"""Requests as attackers write them, into the socket of a real gateway: refused, or read in one way only."""

import json
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from schemas.errors import ErrorEnvelope
from tests.integration.security.raw import (
    Witness,
    answers_to,
    connected,
    read_answer,
    read_answers,
    read_to_end,
    statuses,
    witness,
)
from tests.processes import Running, running

pytestmark = pytest.mark.enable_socket

CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
HIDDEN = b"GET /v1/models/hidden HTTP/1.1\r\nhost: x\r\n\r\n"
EMPTY_CHUNKS = b"\r\n0\r\n\r\n"
CHUNKED = CHAT + b"transfer-encoding: chunked\r\n\r\n"
GET = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n"
ENDLESS_BYTES_MAX = 32 * 1024 * 1024
"""Above all that sockets hold by themselves."""


class House(NamedTuple):
    gateway: Running
    daemon: Witness


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("requests")
    with witness() as daemon:
        env = {"GATEWAY_CHATD_URLS": daemon.url, "GATEWAY_BODY_BYTES_MAX": "100000"}
        with running("gateway", folder, env=env) as gateway:
            yield House(gateway, daemon)


def code_of(answer: bytes) -> str:
    error = ErrorEnvelope.model_validate_json(answer.partition(b"\r\n\r\n")[2]).error
    assert error.type == "invalid_request_error"
    assert f"x-request-id: {error.request_id}".encode() in answer
    return error.code


AMBIGUOUS = {
    "length and chunks": CHAT + b"content-length: 5\r\ntransfer-encoding: chunked\r\n" + EMPTY_CHUNKS,
    "chunks and length": CHAT + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n" + EMPTY_CHUNKS,
    "unknown coding": CHAT + b"transfer-encoding: xchunked\r\n" + EMPTY_CHUNKS,
    "identity": CHAT + b"transfer-encoding: identity\r\n" + EMPTY_CHUNKS,
    "chunks, then identity": CHAT + b"transfer-encoding: chunked, identity\r\n" + EMPTY_CHUNKS,
    "compressed chunks": CHAT + b"transfer-encoding: gzip, chunked\r\n" + EMPTY_CHUNKS,
    "two codings": CHAT + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n" + EMPTY_CHUNKS,
    "coding behind a control": CHAT + b"transfer-encoding: \x0bchunked\r\n" + EMPTY_CHUNKS,
    "space before the colon": CHAT + b"transfer-encoding : chunked\r\n" + EMPTY_CHUNKS,
    "two lengths": CHAT + b"content-length: 2\r\ncontent-length: 5\r\n\r\n{}",
    "a length twice": CHAT + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "a list of lengths": CHAT + b"content-length: 2, 2\r\n\r\n{}",
    "a sign": CHAT + b"content-length: +2\r\n\r\n{}",
    "less than nothing": CHAT + b"content-length: -2\r\n\r\n{}",
    "a length in hex": CHAT + b"content-length: 0x2\r\n\r\n{}",
    "a length beyond all": CHAT + b"content-length: 99999999999999999999999\r\n\r\n{}",
    "no length": CHAT + b"content-length: \r\n\r\n{}",
    "a folded line": CHAT + b"x-a: b\r\n content-length: 2\r\n\r\n{}",
    "a folded length": CHAT + b"content-length:\r\n 2\r\n\r\n{}",
    "bare line feeds": CHAT.replace(b"\r\n", b"\n") + b"content-length: 2\n\n{}",
    "a bare carriage return": CHAT + b"x-a: b\rcontent-length: 2\r\n\r\n{}",
    "a null in a value": CHAT + b"x-a: b\x00c\r\ncontent-length: 2\r\n\r\n{}",
    "a null in a name": CHAT + b"x\x00a: bc\r\ncontent-length: 2\r\n\r\n{}",
    "no colon": CHAT + b"abc\r\ncontent-length: 2\r\n\r\n{}",
    "a chunk of less than nothing": CHUNKED + b"-1\r\n\r\n",
    "a chunk size with a prefix": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk beyond all": CHUNKED + b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "chunks by line feeds": CHUNKED + b"2\n{}\n0\n\n",
    "a chunk that is too short": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
    "a length after the body": CHUNKED + b"2\r\n{}\r\n0\r\ncontent-length: 5\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"host: y\r\n\r\n",
    "a later version": b"GET /v1/models HTTP/1.2\r\nhost: x\r\n\r\n",
    "the next protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a null in the path": b"GET /v1/mod\x00els HTTP/1.1\r\nhost: x\r\n\r\n",
    "a space in the path": b"GET /v1/ models HTTP/1.1\r\nhost: x\r\n\r\n",
    "chunks in the old version": CHUNKED.replace(b"/1.1", b"/1.0") + b"2\r\n{}\r\n0\r\n\r\n",
    "a tab before the colon": CHAT + b"content-length\t: 2\r\n\r\n{}",
    "a space before a header": CHAT.replace(b"host", b" host") + b"content-length: 2\r\n\r\n{}",
    "a tab in the first line": b"GET\t/v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
    "the version in small letters": b"GET /v1/models http/1.1\r\nhost: x\r\n\r\n",
    "no version": b"GET /v1/models\r\n\r\n",
    "a name without a path": b"GET evil.example HTTP/1.1\r\nhost: x\r\n\r\n",
    "chunks and a length in the trailer": CHUNKED + b"2\r\n{}\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
    "letters beyond ASCII": "GET /v1/modéls HTTP/1.1\r\nhost: x\r\n\r\n".encode(),
}


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(
    house: House, data: bytes
) -> None:
    house.daemon.seen.clear()
    answer = answers_to(house.gateway.url, data + HIDDEN)
    assert statuses(answer) == [400]
    assert code_of(answer) == "invalid_http"
    assert house.daemon.lines == []


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (CHAT + b"content-length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN, ["POST /v1/chat/completions"]),
        (GET + b"content-length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN, ["GET /v1/models"]),
        (CHUNKED + b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN), ["POST /v1/chat/completions"]),
        (b"GET http://evil.example/v1/models HTTP/1.1\r\nhost: x\r\n\r\n", ["GET /v1/models"]),
        (GET + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n" + HIDDEN, ["GET /v1/models"]),
        (GET + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n" + HIDDEN, ["GET /v1/models"]),
    ],
)
def test_a_request_in_a_body_is_a_body(house: House, data: bytes, lines: list[str]) -> None:
    house.daemon.seen.clear()
    assert set(statuses(answers_to(house.gateway.url, data))) == {200}
    assert house.daemon.lines == lines


def test_what_a_daemon_is_sent_has_one_length_and_no_word_of_the_hop_before(house: House) -> None:
    house.daemon.seen.clear()
    hop = b"te: trailers\r\nconnection: x-a\r\nkeep-alive: 5\r\ncookie: a=b\r\n"
    hop += b"proxy-authorization: Basic YQ==\r\n"
    forged = b"x-stillhouse-principal: root\r\nx-stillhouse-internal: guess\r\nx-forwarded-for: 1.2.3.4\r\n"
    answers_to(
        house.gateway.url, CHAT + hop + forged + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    )
    [(_, headers, body)] = house.daemon.seen
    assert body == b"{}"
    assert headers["content-length"] == "2"
    assert headers["x-stillhouse-principal"] == "local"
    for name in ("transfer-encoding", "te", "connection", "keep-alive", "proxy-authorization", "cookie"):
        assert name not in headers
    assert not {"x-stillhouse-internal", "x-forwarded-for"} & set(headers)


@pytest.mark.parametrize(
    ("pieces", "bodies"),
    [
        ([b"2\r\n\r\n{}"], [b"{}"]),
        ([b"12\r\n\r\n" + b"x" * 12], [b"x" * 12]),
        ([b"02\r\n\r\n{}"], [b"{}"]),
        ([b"0\r\n\r\n"], [b""]),
        ([b"4\r\n\r\n{}", b"  "], [b"{}  "]),
        ([b"2", b"2\r\n\r\n", b"x" * 22], [b"x" * 22]),
        ([b"2\r\n\r\n{}" + HIDDEN], [b"{}", b""]),
        ([b"2\r\n\r\n{}" + CHAT + b"content-length: 2\r\n\r\n[]"], [b"{}", b"[]"]),
        ([b"%d\r\n\r\n" % len(HIDDEN) + HIDDEN], [HIDDEN]),
    ],
)
def test_a_head_that_came_before_is_read_as_if_it_were_new(
    house: House, pieces: list[bytes], bodies: list[bytes]
) -> None:
    again = CHAT + b"content-length: "
    with connected(house.gateway.url) as connection:
        for _ in range(3):
            connection.sendall(again + b"2\r\n\r\n{}")
            assert statuses(read_answer(connection)) == [200]
        house.daemon.seen.clear()
        connection.sendall(again + pieces[0])
        for piece in pieces[1:]:
            time.sleep(0.01)  # so that it is read by itself, most often
            connection.sendall(piece)
        assert statuses(read_answers(connection, len(bodies))) == [200] * len(bodies)
    assert [body for _, _, body in house.daemon.seen] == bodies


@pytest.mark.parametrize("rest", [b"+2\r\n\r\n{}", b"2 \r\ncontent-length: 2\r\n\r\n{}", b"2\r\nx\r\n\r\n{}"])
def test_a_head_that_nearly_came_before_is_refused_all_the_same(house: House, rest: bytes) -> None:
    again = CHAT + b"content-length: "
    with connected(house.gateway.url) as connection:
        for _ in range(3):
            connection.sendall(again + b"2\r\n\r\n{}")
            assert statuses(read_answer(connection)) == [200]
        connection.sendall(again + rest)
        assert statuses(read_to_end(connection)) == [400]


def test_many_requests_in_a_row_are_answered_in_their_order(house: House) -> None:
    house.daemon.seen.clear()
    bodies = [b"%d:" % number + b"x" * (number * 7919 % 9000) for number in range(300)]
    row = b"".join(CHAT + b"content-length: %d\r\n\r\n" % len(body) + body for body in bodies)
    with connected(house.gateway.url) as connection:
        sender = threading.Thread(target=connection.sendall, args=(row,))
        sender.start()
        assert statuses(read_answers(connection, len(bodies))) == [200] * len(bodies)
        sender.join()
    assert [body for _, _, body in house.daemon.seen] == bodies


def resident_bytes(gateway: Running) -> int:
    pages = Path(f"/proc/{gateway.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


@pytest.mark.parametrize("path", [b"/healthz", b"/v1/models", b"/metrics", b"/v1/nowhere"])
def test_who_asks_and_does_not_read_fills_no_memory(house: House, path: bytes) -> None:
    block = b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path * 5000
    before = resident_bytes(house.gateway)
    with ExitStack() as stack:
        for _ in range(8):
            connection = stack.enter_context(connected(house.gateway.url))
            connection.settimeout(0.3)
            with suppress(TimeoutError):
                for _ in range(100):
                    connection.sendall(block)
        assert httpx.get(f"{house.gateway.url}/healthz", timeout=30, trust_env=False).status_code == 200
        grown = resident_bytes(house.gateway) - before
    assert grown < 64 * 1024 * 1024


def test_what_comes_after_the_last_chunk_is_no_header(house: House) -> None:
    house.daemon.seen.clear()
    trailers = b"x-note: late\r\nauthorization: Bearer late\r\nhost: late\r\nx-request-id: late\r\n"
    answer = answers_to(house.gateway.url, CHUNKED + b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n")
    assert statuses(answer) == [200, 200]
    [(_, headers, body)] = house.daemon.seen
    assert body == b"{}"
    assert "late" not in headers.values()


ENDLESS = {
    "headers": (GET, b"x-a: b\r\n"),
    "a header": (GET + b"x-a: ", b"b" * 64),
    "a path": (b"GET /v1/", b"a" * 64),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"x-a: b\r\n"),
    "a trailer": (CHUNKED + b"2\r\n{}\r\n0\r\nx-a: ", b"b" * 64),
    "an extension of a chunk": (CHUNKED + b"2;", b"a" * 64),
    "extensions of chunks": (CHUNKED, b"1;%b\r\nx\r\n" % (b"a" * 60)),
    "empty lines": (b"", b"\r\n" * 32),
    "the size of a chunk": (CHUNKED, b"0" * 64),
}


@pytest.mark.parametrize(("begun", "more"), ENDLESS.values(), ids=ENDLESS.keys())
def test_what_has_no_end_is_not_read_for_long(house: House, begun: bytes, more: bytes) -> None:
    house.daemon.seen.clear()
    block, sent = more * (65536 // len(more)), 0
    with connected(house.gateway.url) as connection, suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(begun)
        while sent < ENDLESS_BYTES_MAX:
            connection.sendall(block)
            sent += len(block)
    assert sent < ENDLESS_BYTES_MAX
    assert house.daemon.lines == []


def test_a_broken_request_behind_one_that_is_answered_spoils_no_answer(house: House) -> None:
    answer = answers_to(house.gateway.url, GET + b"\r\n" + b"\x00\x01garbage\r\n\r\n")
    assert statuses(answer) in ([], [200])


# --- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (GET + b"a: b\r\n" * 300 + b"\r\n", 400, "too_many_headers"),
        (GET + b"a: " + b"b" * 70_000 + b"\r\n\r\n", 400, "head_too_large"),
        (b"GET /v1/models?" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 400, "head_too_large"),
        (CHAT + b"connection: close\r\ncontent-length: 100001\r\n\r\n", 413, "body_too_large"),
        (CHAT + b"expect: 100-continue\r\ncontent-length: 100001\r\n\r\n", 413, "body_too_large"),
        (CHAT + b"content-length: 99999999\r\n\r\n", 413, "body_too_large"),
        (
            CHUNKED + (b"4000\r\n" + b"x" * 0x4000 + b"\r\n") * 7 + b"0\r\n\r\n",
            413,
            "body_too_large",
        ),
        (CHAT + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", 400, "unsupported_encoding"),
        (CHAT + b"content-encoding: br\r\ncontent-length: 2\r\n\r\n{}", 400, "unsupported_encoding"),
    ],
)
def test_what_is_too_large_or_would_grow_is_refused(
    house: House, data: bytes, status: int, code: str
) -> None:
    house.daemon.seen.clear()
    answer = answers_to(house.gateway.url, data)
    assert statuses(answer)[0] == status
    assert f'"code":"{code}"'.encode() in answer
    assert house.daemon.lines == []


def test_who_sends_all_of_a_body_that_is_too_large_gets_to_read_why(house: House) -> None:
    connection = HTTPConnection(house.gateway.url.removeprefix("http://"), timeout=30)
    for _ in range(2):  # on one connection, which is none the worse for it
        for path in ("/v1/chat/completions", "/v1/embeddings"):
            connection.request("POST", path, b"x" * 20_000_000, {"content-type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["error"]["code"]) == (413, "body_too_large")
    connection.close()


@pytest.mark.parametrize("depth", [250, 1000, 40_000])
@pytest.mark.parametrize("number", ["1", "1" * 30])  # a long one takes another reader
def test_depth_is_bounded_before_anybody_recurses(house: House, depth: int, number: str) -> None:
    nested = "[" * depth + "]" * depth
    body = f'{{"retrieve":{nested},"n":{number}}}'.encode()
    for path in ("/v1/embeddings", "/v1/iterate"):
        answer = httpx.post(f"{house.gateway.url}{path}", content=body, timeout=30, trust_env=False)
        assert answer.status_code < 500 or answer.json()["error"]["type"] == "unavailable_error"
    assert house.gateway.process.poll() is None


# --- time -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway that waits for nobody long."""
    with witness() as daemon:
        env = {
            "GATEWAY_CHATD_URLS": daemon.url,
            "GATEWAY_HEAD_TIMEOUT_S": "1",
            "GATEWAY_BODY_TIMEOUT_S": "1",
            "GATEWAY_CONNECTIONS_MAX": "8",
        }
        with running("gateway", tmp_path_factory.mktemp("hasty"), env=env) as gateway:
            yield House(gateway, daemon)


@pytest.mark.parametrize(
    ("begun", "statuses_after"),
    [
        (b"", []),
        (b"\r\n\r\n", []),
        (b"GET /v1/mod", [408]),
        (GET + b"x-slow: ", [408]),
        (CHAT + b"content-length: 1000\r\n\r\n{", [408]),
        (CHUNKED + b"2\r\n{", [408]),
    ],
    ids=["nothing", "empty lines", "a path", "a header", "a body", "a chunk"],
)
def test_who_does_not_go_on_is_cut_off(hasty: House, begun: bytes, statuses_after: list[int]) -> None:
    with connected(hasty.gateway.url) as connection:
        connection.sendall(begun)
        assert statuses(read_to_end(connection)) == statuses_after


def test_an_empty_line_is_no_sign_of_life(hasty: House) -> None:
    with connected(hasty.gateway.url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert statuses(read_answer(connection)) == [200]
        connection.sendall(b"\r\n")
        assert read_to_end(connection) == b""


def test_drops_do_not_keep_a_connection(hasty: House) -> None:
    started = time.monotonic()
    with connected(hasty.gateway.url) as connection:
        connection.sendall(CHAT + b"content-length: 1000\r\n\r\n")
        connection.settimeout(0.2)
        received = b""
        while time.monotonic() < started + 30 and not received:
            try:
                connection.sendall(b" ")
                received = connection.recv(65536)
            except TimeoutError:
                continue
    assert statuses(received) == [408]


def test_no_more_connections_than_there_may_be(hasty: House) -> None:
    sockets = []
    try:
        for _ in range(12):
            manager = connected(hasty.gateway.url)
            sockets.append((manager, manager.__enter__()))
        refused = read_to_end(sockets[-1][1])
        assert statuses(refused) == [503]
        assert b"retry-after: 1" in refused
    finally:
        for manager, _ in sockets:
            manager.__exit__(None, None, None)
    deadline = time.monotonic() + 30
    while True:  # and with them gone there is room again
        try:
            assert httpx.get(f"{hasty.gateway.url}/healthz", trust_env=False).status_code in (200, 503)
            if httpx.get(f"{hasty.gateway.url}/healthz", trust_env=False).status_code == 200:
                break
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


FILES = 192
FEW_FILES = f"""
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, {FILES}))
runpy.run_module("gateway", run_name="__main__")
"""


def test_connections_that_only_sit_there_do_not_take_all_files(tmp_path: Path) -> None:
    with witness() as daemon, ExitStack() as stack:
        env = {"GATEWAY_CHATD_URLS": daemon.url}
        gateway = stack.enter_context(running("gateway", tmp_path, program=("-c", FEW_FILES), env=env))
        served = stack.enter_context(connected(gateway.url))
        for _ in range(FILES):
            stack.enter_context(connected(gateway.url))
        for _ in range(3):
            served.sendall(GET + b"\r\n")
            assert statuses(read_answer(served)) == [200]
        assert "limit of open files" in gateway.text()


# --- answers ----------------------------------------------------------------------------------


def test_answers_of_every_way_tell_browsers_to_take_them_for_nothing_else(house: House) -> None:
    url = house.gateway.url
    long_way = httpx.get(f"{url}/v1/models", trust_env=False)
    short_way = httpx.post(f"{url}/v1/chat/completions", content=b"{}", trust_env=False)
    unread = answers_to(url, b"nonsense\r\n\r\n").lower()
    for headers in (long_way.headers, short_way.headers):
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers
        assert "strict-transport-security" not in headers  # said over TLS alone
        assert "access-control-allow-origin" not in headers
    assert b"x-content-type-options: nosniff" in unread


def test_pages_of_other_origins_may_ask_where_the_settings_say_so(tmp_path: Path) -> None:
    page = {"origin": "https://app.example.com"}
    asks = {
        **page,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    with witness() as daemon:
        env = {"GATEWAY_CHATD_URLS": daemon.url, "GATEWAY_CORS_ORIGINS": page["origin"]}
        with running("gateway", tmp_path, env=env) as gateway, httpx.Client(trust_env=False) as client:
            url = f"{gateway.url}/v1/chat/completions"
            for answer in (client.options(url, headers=asks), client.post(url, content=b"{}", headers=page)):
                assert answer.status_code == 200
                assert answer.headers["access-control-allow-origin"] == page["origin"]
            other = client.post(url, content=b"{}", headers={"origin": "https://evil.example"})
            assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null", "content-type": "text/plain"},
        {"host": "evil.example:3100"},  # a name that was made to lead here
        {"host": "evil.example:3100", "origin": "http://evil.example:3100"},
    ],
)
def test_without_keys_no_page_of_elsewhere_is_served(house: House, headers: dict[str, str]) -> None:
    house.daemon.seen.clear()
    with httpx.Client(base_url=house.gateway.url, headers=headers, trust_env=False) as client:
        for answer in (
            client.post("/v1/chat/completions", content=b"{}"),
            client.post("/v1/embeddings", content=b'{"model":"m","input":"a"}'),
            client.get("/v1/models"),
            client.get("/v1/status"),
            client.delete("/v1/collections/a"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_page")
            assert "access-control-allow-origin" not in answer.headers
        assert client.get("/healthz").status_code == 200
    assert house.daemon.lines == []


def test_pages_and_programs_of_this_machine_are_served(house: House) -> None:
    for headers in ({"origin": "http://localhost:5173"}, {"host": "localhost:3100"}, {"host": "gateway"}):
        answer = httpx.get(f"{house.gateway.url}/v1/models", headers=headers, trust_env=False)
        assert answer.status_code == 200


def test_an_answer_of_a_daemon_leads_nowhere(house: House) -> None:
    house.daemon.answer = (307, {"location": "http://169.254.169.254/latest/meta-data"}, b"")
    try:
        answer = httpx.get(f"{house.gateway.url}/v1/models", trust_env=False)
    finally:
        house.daemon.answer = Witness().answer
    assert answer.status_code == 307  # passed on, not followed: nobody asked the gateway to go there
