"""The short way of the passages: the same answers as on the long one, whatever daemons and callers do."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from schemas.chat import GateSpec
from services.keys import KeyGrant, KeyStore
from services.protocol import EnvelopeProtocol
from tests.integration.gateway.house import Asked, House, Stub, answers, house, request, stub, whole
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.enable_socket]

OK = b'{"ok":true}'
VALIDATE = "/v1/validate"
CHAT = "/v1/chat/completions"
SEARCH = "/v1/collections/notes/search"

PASSING = {b"x-request-id", b"traceparent", b"content-length", b"transfer-encoding", b"host"}
"""What differs between two requests, or between the two ways."""


def key(data: Path, **grant: Any) -> dict[str, str]:
    plain, _ = KeyStore(data).create(KeyGrant(**{"name": "tests", **grant}))
    return {"authorization": f"Bearer {plain}"}


async def echo(asked: Asked, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with what was asked; the body may say with which status, and in which form."""
    try:
        wanted = orjson.loads(asked.body)
    except orjson.JSONDecodeError:
        wanted = {}
    seen = {
        "line": asked.line.decode(),
        "headers": sorted((n.decode(), v.decode()) for n, v in asked.headers if n not in PASSING),
        "body": asked.body.decode("latin-1"),
    }
    body = orjson.dumps(seen) + b" " * wanted.get("padding", 0)
    status = b"%d Some" % wanted.get("status", 200)
    more = (b"x-run-id: r1", b"set-cookie: a=1", b"set-cookie: b=2", b"server: stub")
    if wanted.get("status") == 204:
        writer.write(b"HTTP/1.1 204 Nothing\r\n\r\n")
    elif not wanted.get("chunked"):
        writer.write(whole(body, status, *more))
    else:
        head = [b"HTTP/1.1 " + status, *more, b"content-type: text/plain", b"transfer-encoding: chunked"]
        pieces = [body[: len(body) // 2], body[len(body) // 2 :]]
        chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
        writer.write(b"\r\n".join([*head, b"", b"".join(chunks)]) + b"0\r\n\r\n")


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    """A body without a declared length: such a request takes the long way."""
    yield body


def comparable(answer: httpx.Response) -> Any:
    volatile = {"date", "retry-after", "x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens"}
    headers = sorted((n, v) for n, v in answer.headers.multi_items() if n not in volatile)
    return answer.status_code, headers, answer.content


ALIKE: list[tuple[str, dict[str, Any], dict[str, str], int, bool]] = [
    (VALIDATE, {"kind": "fill"}, {}, 200, True),
    (f"{VALIDATE}?a=b&c=%2F", {}, {"content-type": "application/json; charset=utf-8"}, 200, True),
    (SEARCH, {"text": "x"}, {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}, 200, True),
    ("/v1/collections/n%6Ftes/search", {"text": "x"}, {}, 200, True),
    ("/v1/collections/a%2Fb/search", {"text": "x"}, {}, 404, False),
    ("/v1/collections//search", {"text": "x"}, {}, 404, False),
    ("/v1/retrieve", {}, {"x-stillhouse-roles": "nurse", "cookie": "a=b", "x-mine": "1"}, 200, True),
    (CHAT, {"chunked": True}, {"accept": "text/event-stream"}, 200, True),
    (CHAT, {"chunked": True, "status": 201}, {}, 201, True),
    (CHAT, {"status": 409}, {}, 409, True),
    (CHAT, {"status": 429}, {}, 429, True),
    (CHAT, {"status": 500}, {}, 500, True),
    ("/v1/collections/notes/points/delete", {"status": 204}, {}, 204, True),
    (SEARCH, {"padding": 60_000}, {}, 200, True),
    (SEARCH, {"padding": 200_000}, {}, 200, True),
    (SEARCH, {"padding": 200_000, "chunked": True}, {}, 200, True),
    ("/v1/iterate", {"retrieve": {"collections": []}}, {}, 200, True),
    ("/v1/iterate", {"retrieve": None}, {}, 200, True),
    ("/v1/validate/batch", {}, {"content-type": "application/x-ndjson"}, 200, True),
    ("/v1/embeddings", {"input": 5}, {}, 200, False),
    ("/v1/nothing", {}, {}, 404, False),
    ("/v1/models", {}, {}, 405, False),
]
"""Path, body, headers; the status, and whether the short way takes it."""


async def test_both_ways_give_the_same_answer(tmp_path: Path) -> None:
    authorization = key(tmp_path)
    async with (
        stub(echo) as daemon,
        house(tmp_path, [daemon.url]) as gateway,
        gateway.client(**authorization) as client,
    ):
        for case in ALIKE:
            path, body, headers, status, short = case
            gateway.taken.clear()
            given = {**headers, "x-request-id": "r-1"}
            data = orjson.dumps(body)
            long = await client.post(path, content=in_pieces(data), headers=given)
            first = await client.post(path, content=data, headers=given)
            again = await client.post(path, content=data, headers=given)
            assert comparable(first) == comparable(again) == comparable(long), case
            assert (long.status_code, any(gateway.taken)) == (status, short), case
        await until(lambda: gateway.idle)


KEYS: list[tuple[dict[str, Any], str, bytes, int]] = [
    ({"scopes": ("embed",)}, VALIDATE, b"{}", 403),
    ({"scopes": ("chat",)}, "/v1/iterate", b'{"retrieve":{"collections":["a"]}}', 403),
    ({"scopes": ("admin",)}, "/v1/iterate", b'{"retrieve":{"collections":["a"]}}', 200),
    ({"roles": ("nurse",)}, SEARCH, b"{}", 200),
    ({"rpm": 1000}, CHAT, b"{}", 200),
    ({"tpm": 1000}, CHAT, b'{"usage":{"total_tokens": 7}}', 200),
    ({"rpm": 1}, CHAT, b"not json", 429),
    ({}, CHAT, b"not json", 200),
    ({}, CHAT, b"", 200),
]


async def test_keys_count_the_same_on_both_ways(tmp_path: Path) -> None:
    keys = [key(tmp_path, name=f"key {number}", **case[0]) for number, case in enumerate(KEYS)]
    async with stub(echo) as daemon, house(tmp_path, [daemon.url]) as gateway, gateway.client() as client:
        for authorization, (grant, path, body, status) in zip(keys, KEYS, strict=True):
            gateway.taken.clear()
            headers = {"x-request-id": "r", **authorization}
            if grant.get("rpm") == 1:
                await client.post(path, content=in_pieces(body), headers=headers)
            long = await client.post(path, content=in_pieces(body), headers=headers)
            short = await client.post(path, content=body, headers=headers)
            assert comparable(short) == comparable(long), grant
            assert (long.status_code, gateway.taken) == (status, [status == 200]), grant
        unknown = {"authorization": "Bearer sh-none", "x-request-id": "r"}
        twice = [("authorization", "Bearer sh-none"), *keys[-1].items(), ("x-request-id", "r")]
        for headers_sent in (unknown, {"x-request-id": "r"}, twice):
            long = await client.post(CHAT, content=in_pieces(b"{}"), headers=headers_sent)
            short = await client.post(CHAT, content=b"{}", headers=headers_sent)
            assert comparable(short) == comparable(long)
            assert long.status_code == 401


async def test_limits_hold_on_the_short_way(tmp_path: Path) -> None:
    requests, tokens = key(tmp_path, name="r", rpm=2), key(tmp_path, name="t", tpm=100)
    usage = whole(b'{"usage":{"total_tokens":150}}')
    async with (
        stub(answers(usage)) as daemon,
        house(tmp_path, [daemon.url]) as gateway,
        gateway.client() as c,
    ):
        left = [await c.post(CHAT, content=b"{}", headers=requests) for _ in range(3)]
        spent = [await c.post(CHAT, content=b"{}", headers=tokens) for _ in range(2)]
    assert [answer.status_code for answer in left] == [200, 200, 429]
    assert [answer.headers.get("x-ratelimit-remaining-requests") for answer in left] == ["1", "0", None]
    assert [answer.status_code for answer in spent] == [200, 429]
    assert gateway.taken == [True, True, False, True, False]


@pytest.mark.parametrize("short", [True, False])
async def test_tokens_that_only_the_gateway_is_told_are_charged(tmp_path: Path, *, short: bool) -> None:
    counted, uncounted = key(tmp_path, name="t", tpm=1000), key(tmp_path, name="r", rpm=100)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-stillhouse-tokens: 60\r\n\r\n{}"
    async with (
        stub(answers(head)) as daemon,
        house(tmp_path, [daemon.url]) as gateway,
        gateway.client() as client,
    ):
        body = b"{}" if short else in_pieces(b"{}")
        answer = await client.post("/v1/iterate", content=body, headers=counted)
        again = await client.post("/v1/iterate", content=body if short else in_pieces(b"{}"), headers=counted)
        await client.post("/v1/iterate", content=b"{}", headers=uncounted)
        await client.post(SEARCH, content=b"{}", headers=counted | {"x-stillhouse-metered": "1"})
    assert "x-stillhouse-tokens" not in answer.headers
    assert again.headers["x-ratelimit-remaining-tokens"] == "940"
    asked = [b"x-stillhouse-metered" in dict(one.headers) for one in daemon.asked]
    assert asked == [True, True, False, False]


async def test_a_verdict_on_a_run_is_handed_on(tmp_path: Path) -> None:
    verdict = {
        "ok": True,
        "verdict": "accepted",
        "findings": [],
        "kind": "fill",
        "validator": {"name": "fill", "version": "1", "policy_version": "1"},
        "elapsed_ms": 0.1,
    }

    async def script(asked: Asked, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = {"accepted": 1, "rejected": []}
        writer.write(whole(orjson.dumps(kept if b"/v1/runs" in asked.line else verdict)))

    async with stub(script) as daemon, house(tmp_path, [daemon.url]) as gateway, gateway.client() as client:
        answer = await client.post(VALIDATE, content=b'{"kind":"fill","run_id":"r1"}')
    assert answer.headers["x-verdict-recorded"] == "true"
    assert gateway.taken == [False]


async def test_what_is_counted_and_passed_on(tmp_path: Path) -> None:
    headers = key(tmp_path, name="agency", roles=("welder", "line cook"))
    async with (
        stub(answers(whole(OK))) as daemon,
        house(tmp_path, [daemon.url]) as gateway,
        gateway.client(**headers) as client,
    ):
        for _ in range(3):
            assert (await client.post(SEARCH, content=b"{}")).content == OK
        metrics = (await client.get("/metrics")).text
    line = 'http_requests_total{method="POST",route="/v1/collections/{name}/search",status="200"} 3.0'
    assert line in metrics
    seen = dict(daemon.asked[-1].headers)
    assert (seen[b"x-stillhouse-principal"], seen[b"x-stillhouse-roles"]) == (b"agency", b"welder,line cook")
    assert b"authorization" not in seen
    assert len({dict(asked.headers)[b"traceparent"] for asked in daemon.asked}) == 3
    assert daemon.connections == 1


@pytest.mark.parametrize("short", [True, False])
async def test_a_key_s_gate_goes_with_its_chats_and_nowhere_else(tmp_path: Path, *, short: bool) -> None:
    gate = GateSpec(kind="email", context={"city": "Nuñez"})
    headers = {**key(tmp_path, gate=gate), "x-stillhouse-validate": "{}"}
    async with (
        stub(answers(whole(OK))) as daemon,
        house(tmp_path, [daemon.url]) as gateway,
        gateway.client(**headers) as client,
    ):
        for path in (CHAT, SEARCH):
            await client.post(path, content=b"{}" if short else in_pieces(b"{}"))
    chat, search = (dict(asked.headers) for asked in daemon.asked)
    assert GateSpec.model_validate_json(chat[b"x-stillhouse-validate"]) == gate
    assert b"x-stillhouse-validate" not in search
    assert any(gateway.taken) == short


@pytest.mark.parametrize("short", [True, False])
async def test_a_key_may_come_as_anthropic_s_clients_send_it(tmp_path: Path, *, short: bool) -> None:
    plain = key(tmp_path)["authorization"].removeprefix("Bearer ")
    async with (
        stub(answers(whole(OK))) as daemon,
        house(tmp_path, [daemon.url]) as gateway,
        gateway.client(**{"x-api-key": plain}) as client,
    ):
        taken = await client.post("/v1/messages", content=b"{}" if short else in_pieces(b"{}"))
        wrong = await client.post("/v1/messages", content=b"{}", headers={"authorization": "Bearer sh-no"})
    assert (taken.status_code, wrong.status_code) == (200, 401)
    seen = dict(daemon.asked[0].headers)
    assert b"x-api-key" not in seen
    assert seen[b"x-stillhouse-principal"] == b"tests"


@pytest.mark.parametrize("body", [b'{"retrieve":{}}', b'{"retr\\u0069eve":{}}'])
async def test_an_escaped_key_is_the_same_key(tmp_path: Path, body: bytes) -> None:
    headers = key(tmp_path, scopes=("chat",))
    async with (
        stub(answers(whole(OK))) as daemon,
        house(tmp_path, [daemon.url]) as gateway,
        gateway.client(**headers) as client,
    ):
        answer = await client.post("/v1/iterate", content=body)
    assert answer.status_code == 403
    assert daemon.asked == []


# --- streams ------------------------------------------------------------------------------------


CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("warm", [False, True])
async def test_chunks_pass_as_they_come(tmp_path: Path, *, warm: bool) -> None:
    seen = asyncio.Semaphore(0)

    async def script(asked: Asked, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asked.body == b"warm":
            writer.write(whole(OK))
            return
        writer.write(CHUNKED)
        for number in range(5):
            writer.write(b"9\r\ndata: %d\n\n\r\n" % number)
            await asyncio.wait_for(seen.acquire(), 30)  # the caller has got it before the next one leaves
        writer.write(b"0\r\n\r\n")

    async with stub(script) as daemon, house(tmp_path, [daemon.url]) as gateway, gateway.client() as client:
        if warm:
            await client.post(CHAT, content=b"warm")
        async with client.stream("POST", CHAT, content=b"{}") as answer:
            got = []
            async for chunk in answer.aiter_raw():
                got.append(chunk)
                seen.release()
        assert got == [b"data: %d\n\n" % number for number in range(5)]
        assert answer.headers["transfer-encoding"] == "chunked"
        await until(lambda: gateway.idle)
    assert gateway.taken == [True] * (1 + warm)
    assert daemon.connections == 1


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_caller_that_does_not_read_holds_the_daemon_up(
    tmp_path: Path, *, warm: bool, chunked: bool
) -> None:
    size, piece = 64 * 1024 * 1024, 64 * 1024
    sent = 0

    async def script(asked: Asked, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        if asked.body == b"warm":
            writer.write(whole(OK))
            return
        length = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size
        writer.write(CHUNKED if chunked else length)
        while sent < size:
            data = b"x" * piece
            writer.write(b"%x\r\n%b\r\n" % (piece, data) if chunked else data)
            await writer.drain()
            sent += piece
        writer.write(b"0\r\n\r\n" if chunked else b"")

    async with stub(script) as daemon, house(tmp_path, [daemon.url]) as gateway, gateway.client() as client:
        if warm:
            await client.post(CHAT, content=b"warm")
        received = 0
        async with client.stream("POST", CHAT, content=b"{}") as answer:
            before = -1
            while before != sent or not sent:  # until the daemon is held up
                before = sent
                await asyncio.sleep(0.3)
            assert 0 < sent < size / 2
            async for chunk in answer.aiter_raw():
                received += len(chunk)
        assert received == size
        await until(lambda: gateway.idle)
        assert (await client.post(CHAT, content=b"warm")).content == OK  # the connection is not left held up
        assert daemon.connections == 1


@pytest.mark.parametrize("warm", [False, True])
async def test_a_caller_that_stops_reading_for_good_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, warm: bool
) -> None:
    monkeypatch.setattr(EnvelopeProtocol, "stall_s_max", 0.4)

    async def script(asked: Asked, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asked.body == b"warm":
            writer.write(whole(OK))
            return
        writer.write(CHUNKED)
        while True:
            writer.write(b"10000\r\n%b\r\n" % (b"x" * 65536))
            await writer.drain()

    async with stub(script) as daemon, house(tmp_path, [daemon.url]) as gateway:
        if warm:
            async with gateway.client() as client:
                await warmed(client, CHAT)
        _, writer = await gateway.connection()
        writer.write(request(CHAT, b"{}"))
        await until(lambda: len(daemon.asked) == 1 + warm)
        await until(lambda: gateway.idle and daemon.left == daemon.connections == 1)
        writer.close()


# --- failures -----------------------------------------------------------------------------------


async def leave_at_second(asked: Asked, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer what is warm, and break off at the rest."""
    if asked.body != b"warm":
        raise ConnectionError
    writer.write(whole(OK))


async def warmed(client: httpx.AsyncClient, path: str, times: int = 1) -> None:
    for answer in await asyncio.gather(*(client.post(path, content=b"warm") for _ in range(times))):
        assert answer.content == OK


async def test_what_may_be_repeated_goes_on_to_another_replica(tmp_path: Path) -> None:
    async with (
        stub(leave_at_second) as one,
        stub(answers(whole(OK))) as two,
        house(tmp_path, [one.url, two.url]) as gateway,
        gateway.client() as client,
    ):
        await warmed(client, VALIDATE)
        assert (await client.post(VALIDATE, content=b"{}")).content == OK
        assert (await client.post(VALIDATE, content=b"{}")).content == OK  # the first is passed over
        await until(lambda: gateway.idle)
    assert (len(one.asked), len(two.asked)) == (2, 2)
    assert gateway.taken == [True] * 3


async def test_what_may_have_been_done_is_not_repeated(tmp_path: Path) -> None:
    async with (
        stub(leave_at_second) as one,
        stub(answers(whole(OK))) as two,
        house(tmp_path, [one.url, two.url]) as gateway,
        gateway.client() as client,
    ):
        await warmed(client, CHAT)
        answer = await client.post(CHAT, content=b"{}", headers={"x-request-id": "r-9"})
        await until(lambda: gateway.idle)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "chatd_down")
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"] == "r-9"
    assert answer.headers["retry-after"] == "1"
    assert (len(one.asked), len(two.asked)) == (2, 0)


async def test_a_daemon_that_is_down_is_named_and_found_again(tmp_path: Path) -> None:
    async with stub(answers(whole(OK))) as daemon:
        url = daemon.url
    async with house(tmp_path, [url]) as gateway, gateway.client() as client:
        answer = await client.post(CHAT, content=b"{}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "chatd_down")
        server = await asyncio.start_server(
            Stub(answers(whole(OK))).connected, "127.0.0.1", int(url.rpartition(":")[2])
        )
        assert (await client.post(CHAT, content=b"{}")).content == OK
        server.close()
        await until(lambda: gateway.idle)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    "half", [CHUNKED + b"5\r\nhello\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhello"]
)
async def test_half_an_answer_is_never_a_whole_one(tmp_path: Path, half: bytes, *, warm: bool) -> None:
    async def script(asked: Asked, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asked.body == b"warm":
            writer.write(whole(OK))
            return
        writer.write(half)
        await writer.drain()
        raise ConnectionError

    async with stub(script) as daemon, house(tmp_path, [daemon.url]) as gateway, gateway.client() as client:
        if warm:
            await warmed(client, CHAT)
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(CHAT, content=b"{}")
        await until(lambda: gateway.idle)


async def test_half_of_what_was_gathered_is_told_as_a_failure(tmp_path: Path) -> None:
    async def script(asked: Asked, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asked.body == b"warm":
            writer.write(whole(OK))
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello")
        await writer.drain()
        raise ConnectionError

    async with stub(script) as daemon, house(tmp_path, [daemon.url]) as gateway, gateway.client() as client:
        await warmed(client, CHAT)
        answer = await client.post(CHAT, content=b"{}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (502, "upstream_error")
        await until(lambda: gateway.idle)


@pytest.mark.parametrize("warm", [False, True])
async def test_a_silent_daemon_is_given_up(tmp_path: Path, *, warm: bool) -> None:
    async def script(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asked.body == b"warm":
            writer.write(whole(OK))
            return
        if asked.body == b"stream":
            writer.write(CHUNKED + b"5\r\nhello\r\n")
        await reader.read()

    async with (
        stub(script) as daemon,
        house(tmp_path, [daemon.url], upstream_read_timeout_s=0.3) as gateway,
        gateway.client() as client,
    ):
        if warm:
            await warmed(client, CHAT, 2)
        answer = await client.post(CHAT, content=b"{}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(CHAT, content=b"stream")
        await until(lambda: gateway.idle and daemon.left == daemon.connections)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("warm", [False, True])
async def test_a_caller_that_leaves_takes_its_call_along(tmp_path: Path, *, warm: bool, begun: bool) -> None:
    async def script(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asked.body == b"warm":
            writer.write(whole(OK))
            return
        if begun:
            writer.write(CHUNKED + b"5\r\nhello\r\n")
        await reader.read()  # until the gateway lets go

    async with stub(script) as daemon, house(tmp_path, [daemon.url]) as gateway:
        if warm:
            async with gateway.client() as client:
                await warmed(client, CHAT)
        reader, writer = await gateway.connection()
        writer.write(request(CHAT, b"{}"))
        await until(lambda: len(daemon.asked) == 1 + warm)
        if begun:
            await reader.readuntil(b"hello")
        writer.close()
        await until(lambda: gateway.idle and daemon.left == daemon.connections == 1)
        async with gateway.client() as client:
            await warmed(client, CHAT)
            status = "200" if begun else "499"
            line = f'http_requests_total{{method="POST",route="{CHAT}",status="{status}"}}'
            assert line in (await client.get("/metrics")).text


async def test_a_full_replica_lets_few_wait_and_turns_the_rest_away(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def script(_: Asked, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(whole(OK))

    limits = {"upstream_concurrency_max": 2, "upstream_waiting_max": 1}
    async with (
        stub(script) as daemon,
        house(tmp_path, [daemon.url], **limits) as gateway,
        gateway.client() as client,
    ):
        calls = [asyncio.ensure_future(client.post(CHAT, content=b"{}")) for _ in range(5)]
        await until(lambda: sum(call.done() for call in calls) == 2)
        gate.set()
        statuses = sorted([answer.status_code for answer in await asyncio.gather(*calls)])
        assert statuses == [200, 200, 200, 429, 429]
        assert daemon.connections <= 2
        await until(lambda: gateway.idle)


async def test_what_is_under_way_is_finished_while_draining(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def script(asked: Asked, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asked.body != b"warm":
            await gate.wait()
        writer.write(whole(OK))

    async with stub(script) as daemon, house(tmp_path, [daemon.url]) as gateway, gateway.client() as client:
        await warmed(client, CHAT)
        under_way = asyncio.ensure_future(client.post(CHAT, content=b"{}"))
        await until(lambda: len(daemon.asked) == 2)
        gateway.app.drain.begin()
        late = await client.post(CHAT, content=b"{}")
        assert (late.status_code, late.json()["error"]["code"]) == (503, "draining")
        assert not gateway.app.drain.finished
        gate.set()
        assert (await under_way).content == OK
        await until(lambda: gateway.app.drain.finished)


# --- forms of requests --------------------------------------------------------------------------


async def test_requests_sent_at_once_are_answered_in_order(tmp_path: Path) -> None:
    async def script(asked: Asked, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if int(asked.body) % 3:
            writer.write(whole(asked.body))
        else:
            writer.write(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(asked.body), asked.body))

    async with stub(script) as daemon, house(tmp_path, [daemon.url]) as gateway:
        reader, writer = await gateway.connection()
        for number in range(40):
            writer.write(request(VALIDATE, b"%d" % number, b"x-request-id: p%d" % number))
        writer.write(request("/v1/nothing", b"{}", b"x-request-id: last"))
        ids: list[bytes] = []
        async with asyncio.timeout(30):
            while ids[-1:] != [b"last"]:
                line = await reader.readline()
                assert line
                if line.startswith(b"x-request-id: "):
                    ids.append(line.removeprefix(b"x-request-id: ").rstrip())
        writer.close()
    assert ids == [*(b"p%d" % number for number in range(40)), b"last"]
    assert gateway.taken == [True] * 40
    assert [asked.body for asked in daemon.asked] == [b"%d" % number for number in range(40)]


async def test_however_an_answer_is_cut_up_the_caller_gets_it_whole(tmp_path: Path) -> None:
    dice = random.Random(7)
    body = bytes(dice.randrange(256) for _ in range(300))
    pieces = [body[start : start + 60] for start in range(0, 300, 60)]
    chunked = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    async def script(asked: Asked, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = chunked if asked.body == b"chunked" else whole(body)
        cuts = sorted(dice.sample(range(1, len(data)), 6))
        for start, end in itertools.pairwise([0, *cuts, len(data)]):
            writer.write(data[start:end])
            await writer.drain()
            await asyncio.sleep(0.001)

    async with stub(script) as daemon, house(tmp_path, [daemon.url]) as gateway, gateway.client() as client:
        for number in range(40):
            form = b"chunked" if number % 2 else b"whole"
            assert (await client.post(CHAT, content=form)).content == body
    assert gateway.taken == [True] * 40
    assert daemon.connections == 1


@pytest.mark.parametrize("size", [70_000, 1_000_000, 2_000_000])
async def test_large_bodies_arrive_whole(tmp_path: Path, size: int) -> None:
    async def script(asked: Asked, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(b"%d" % len(asked.body)))

    async with stub(script) as daemon, house(tmp_path, [daemon.url]) as gateway, gateway.client() as client:
        reader, writer = await gateway.connection()
        data = request(VALIDATE, b"x" * size, b"connection: close")
        for start in range(0, len(data), 50_000):  # more than one read
            writer.write(data[start : start + 50_000])
            await writer.drain()
            await asyncio.sleep(0.001)
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        assert answer.endswith(b"%d" % size)
        assert b"connection: close" in answer
        assert (await client.post(VALIDATE, content=b"x")).content == b"1"
    assert gateway.taken == [True] * (1 + (size <= 1024 * 1024))


async def test_a_body_beyond_the_setting_is_refused_on_the_short_way_too(tmp_path: Path) -> None:
    async with (
        stub(answers(whole(OK))) as daemon,
        house(tmp_path, [daemon.url], body_bytes_max=2000) as gateway,
        gateway.client() as client,
    ):
        assert (await client.post(VALIDATE, content=b"x" * 2000)).status_code == 200
        answer = await client.post(VALIDATE, content=b"x" * 2001)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert gateway.taken == [True]


async def test_callers_that_leave_at_any_moment_leave_nothing_behind(tmp_path: Path) -> None:
    async def script(asked: Asked, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(len(asked.body) % 3 / 100)
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await asyncio.sleep(len(asked.body) % 5 / 100)
        writer.write(b"0\r\n\r\n")

    async def leaving(gateway: House, number: int) -> None:
        _, writer = await gateway.connection()
        data = request(CHAT, b"x" * number)
        writer.write(data[: -(number % 7) or None])
        await asyncio.sleep(number % 11 / 300)
        writer.close()

    async with stub(script) as daemon, house(tmp_path, [daemon.url], upstream_concurrency_max=8) as gateway:
        await asyncio.gather(*(leaving(gateway, number) for number in range(80)))
        await until(lambda: gateway.idle)
        async with gateway.client() as client:
            assert (await client.post(CHAT, content=b"x")).content == b"hello"
