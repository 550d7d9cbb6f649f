"""The gateway through its door: who may pass, how often, to which replica, and what is relayed."""

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app import create_app
from gateway.backends import FakeUpstream, NotReached, Reply, reply
from gateway.engine import Bucket, TokenMeter
from gateway.routes.passages import PASSAGES
from gateway.settings import Settings
from services.daemon import Daemon
from services.errors import PlatformError
from services.keys import KeyGrant, KeyStore
from services.settings import is_loopback
from services.testing import client_for

pytestmark = pytest.mark.anyio

DAEMONS = ("embedd", "vectord", "chatd", "distill", "validators")
OK = b'{"ok":true}'
JSON = (b"content-type", b"application/json")


def refused(daemon: str = "embedd", *, maybe_done: bool = False) -> NotReached:
    return NotReached(f"{daemon} does not answer", code=f"{daemon}_down", maybe_done=maybe_done)


def gateway(data: Path, **upstreams: Sequence[FakeUpstream]) -> Daemon:
    rest = {name: [FakeUpstream([reply(200, OK, JSON) for _ in range(50)])] for name in DAEMONS}
    settings = Settings(
        data=data,
        keys_reload_interval_s=0.05,
        crash_wait_s=0,
        restart_wait_s=0,
        distill_urls=("http://127.0.0.1:9",),
    )
    return create_app(settings, upstreams={**rest, **upstreams})


def key(data: Path, **grant: Any) -> dict[str, str]:
    plain, _ = KeyStore(data).create(KeyGrant(**{"name": "tests", **grant}))
    return {"authorization": f"Bearer {plain}"}


async def test_without_keys_this_machine_may_do_everything(tmp_path: Path) -> None:
    upstream = FakeUpstream([reply(200, OK, JSON, (b"x-cache", b"hits=1 misses=0"))])
    async with client_for(gateway(tmp_path, embedd=[upstream])) as client:
        response = await client.post("/v1/embeddings?a=b", content=b"{}", headers={"x-request-id": "r-1"})
    assert (response.status_code, response.content) == (200, OK)
    assert response.headers["x-cache"] == "hits=1 misses=0"
    assert response.headers.get_list("x-request-id") == ["r-1"]
    sent = upstream.received[0]
    assert (sent.method, sent.target, sent.body) == ("POST", b"/v1/embeddings?a=b", b"{}")


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "gateway"])
def test_without_keys_no_other_address_is_served(tmp_path: Path, host: str) -> None:
    with pytest.raises(PlatformError, match="stillhouse keys create"):
        create_app(Settings(data=tmp_path, host=host))
    key(tmp_path)
    create_app(Settings(data=tmp_path, host=host))


def test_loopback_is_recognised() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.1.1", "localhost.example"]))


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "missing_api_key"),
        ("Bearer", "missing_api_key"),
        ("Basic abc", "missing_api_key"),
        ("Bearer sh-unknown", "invalid_api_key"),
        ("Bearer \xff\xfe", "invalid_api_key"),
    ],
)
async def test_a_bad_key_is_401(tmp_path: Path, authorization: str | None, code: str) -> None:
    key(tmp_path)
    headers = [(b"authorization", authorization.encode("latin-1"))] if authorization else []
    async with client_for(gateway(tmp_path)) as client:
        response = await client.post("/v1/embeddings", content=b"{}", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (401, code)
    assert response.json()["error"]["type"] == "authentication_error"
    assert response.headers["www-authenticate"] == "Bearer"


async def test_a_key_opens_what_its_scopes_say_and_no_more(tmp_path: Path) -> None:
    headers = key(tmp_path, scopes=("embed",))
    async with client_for(gateway(tmp_path)) as client:
        assert (await client.post("/v1/embeddings", content=b"{}", headers=headers)).status_code == 200
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
        response = await client.post("/v1/retrieve", content=b"{}", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "scope_missing")
    assert "vectors:read" in response.json()["error"]["message"]


async def test_every_scoped_route_refuses_a_key_without_its_scope(tmp_path: Path) -> None:
    admin = key(tmp_path, name="admin", scopes=("admin",))
    others = {scope: key(tmp_path, name=scope, scopes=(scope,)) for scope in ("embed", "observe")}
    async with client_for(gateway(tmp_path)) as client:
        for passage in PASSAGES:
            path = passage.path.replace("{model:path}", "m").replace("{", "").replace("}", "")
            lacking = others["observe" if "embed" in passage.scopes else "embed"]
            status = (await client.request(passage.method, path, headers=lacking)).status_code
            assert status == (403 if passage.scopes else 200), passage
            assert (await client.request(passage.method, path, headers=admin)).status_code == 200, passage


async def test_an_iteration_that_reads_collections_needs_the_scope_for_it(tmp_path: Path) -> None:
    chat = key(tmp_path, name="chat", scopes=("chat",))
    both = key(tmp_path, name="both", scopes=("chat", "vectors:read"))
    async with client_for(gateway(tmp_path)) as client:
        body = {"retrieve": {"collections": ["notes"]}}
        assert (await client.post("/v1/iterate", json=body, headers=chat)).status_code == 403
        assert (await client.post("/v1/iterate", json={"retrieve": None}, headers=chat)).status_code == 200
        assert (await client.post("/v1/iterate", json=body, headers=both)).status_code == 200


async def test_a_key_limited_to_roles_says_so_to_the_daemon_and_cannot_widen_itself(tmp_path: Path) -> None:
    headers = key(tmp_path, name="agency", roles=("welder", "line cook"))
    upstream = FakeUpstream([reply(200, OK, JSON)])
    app = gateway(tmp_path, vectord=[upstream])
    async with client_for(app) as client:
        forged = {**headers, "x-stillhouse-roles": "nurse", "x-stillhouse-principal": "root"}
        assert (await client.post("/v1/retrieve", content=b"{}", headers=forged)).status_code == 200
        refusal = await client.put("/v1/roles", content=b"{}", headers=headers)
    seen = httpx.Headers(list(upstream.received[0].headers))
    assert seen.get_list("x-stillhouse-roles") == ["welder,line cook"]
    assert seen.get_list("x-stillhouse-principal") == ["agency"]
    assert "authorization" not in seen
    assert (refusal.status_code, refusal.json()["error"]["code"]) == (403, "role_limited_key")


async def test_a_revoked_key_stops_working_without_a_restart(tmp_path: Path) -> None:
    headers = key(tmp_path)
    async with client_for(gateway(tmp_path)) as client:
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
        KeyStore(tmp_path).revoke("tests")
        deadline = time.monotonic() + 5
        while (response := await client.get("/v1/models", headers=headers)).status_code == 200:
            assert time.monotonic() < deadline
            await anyio.sleep(0.2)
    assert response.json()["error"]["code"] == "revoked_api_key"


async def test_a_broken_key_file_leaves_the_last_good_one_in_force(tmp_path: Path) -> None:
    headers = key(tmp_path)
    async with client_for(gateway(tmp_path)) as client:
        KeyStore(tmp_path).path.write_text("{")
        deadline = time.monotonic() + 5
        while (keys := (await client.get("/readyz")).json()["dependencies"]["keys"])["ok"]:
            assert time.monotonic() < deadline
            await anyio.sleep(0.05)
        assert "is broken" in keys["reason"]
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
        assert (await client.get("/v1/models")).status_code == 401


async def test_requests_beyond_the_rate_get_429_with_the_time_to_wait(tmp_path: Path) -> None:
    headers = key(tmp_path, rpm=2, scopes=("embed",))
    async with client_for(gateway(tmp_path)) as client:
        first = await client.post("/v1/embeddings", content=b"{}", headers=headers)
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        for _ in range(3):  # refused for its scope: does not count
            assert (await client.get("/v1/roles", headers=headers)).status_code == 403
        assert (await client.post("/v1/embeddings", content=b"{}", headers=headers)).status_code == 200
        response = await client.post("/v1/embeddings", content=b"{}", headers=headers)
    assert response.status_code == 429
    assert 1 <= int(response.headers["retry-after"]) <= 30
    assert response.json()["error"]["type"] == "rate_limit_error"


async def test_tokens_are_charged_as_reported(tmp_path: Path) -> None:
    headers = key(tmp_path, tpm=100)
    body = b'{"usage":{"prompt_tokens":150,"total_tokens":150}}'
    upstream = FakeUpstream([reply(200, body, JSON), reply(200, body, JSON)])
    async with client_for(gateway(tmp_path, embedd=[upstream])) as client:
        assert (await client.post("/v1/embeddings", content=b"{}", headers=headers)).status_code == 200
        response = await client.post("/v1/embeddings", content=b"{}", headers=headers)
    assert response.status_code == 429
    assert "100 tokens a minute" in response.json()["error"]["message"]


def test_the_meter_reads_reports_across_chunks_and_counts_events_otherwise() -> None:
    meter = TokenMeter()
    for chunk in (b'data: {"a":1}\n\n', b'data: {"b"', b':2}\n\ndata: {"c":3}\n\n'):
        meter.feed(chunk)
    assert meter.tokens == 3
    for chunk in (b'data: {"usage":{"total_to', b'kens": 42}}\n\n'):
        meter.feed(chunk)
    assert meter.tokens == 42


def test_the_meter_takes_a_comment_for_a_report() -> None:
    meter = TokenMeter()
    meter.feed(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n: "total_tokens":9\n\ndata: [DONE]\n\n')
    assert meter.tokens == 9


def test_the_meter_adds_up_what_messages_report() -> None:
    meter = TokenMeter()
    meter.feed(b'event: message_start\ndata: {"message":{"usage":{"input_tokens":30,"output_tokens":1}}}\n\n')
    meter.feed(b'event: message_delta\ndata: {"usage":{"output_tokens":12}}\n\n')
    meter.feed(b'data: {"text":"\\"total_tokens\\": 999"}\n\n')  # said by the model, not reported
    assert meter.tokens == 42


def test_a_bucket_refills_evenly_and_may_be_overdrawn_afterwards() -> None:
    now = [0.0]
    bucket = Bucket(60, clock=lambda: now[0])
    assert bucket.wait_s(60) == 0
    bucket.take(60)
    assert bucket.wait_s(1) == pytest.approx(1.0)
    now[0] = 2.0
    assert bucket.remaining == 2
    bucket.take(32)
    assert bucket.wait_s(1) == pytest.approx(31.0)
    now[0] = 1000.0
    assert bucket.remaining == 60


@given(
    per_minute=st.integers(1, 10_000),
    start=st.floats(0, 1e7),
    pauses=st.lists(st.floats(0, 30), min_size=1, max_size=60),
)
@settings(max_examples=60)
def test_no_minute_sees_more_than_twice_the_rate(per_minute: int, start: float, pauses: list[float]) -> None:
    now = [start]
    bucket = Bucket(per_minute, clock=lambda: now[0])
    taken: list[float] = []
    for pause in pauses:
        now[0] += pause
        if bucket.wait_s(1) == 0:
            bucket.take(1)
            taken.append(now[0])
        else:  # and what it says of the time to wait is true
            now[0] += bucket.wait_s(1)
            assert bucket.wait_s(1) == 0
    for first in taken:
        within = sum(first <= moment < first + 60 for moment in taken)
        assert within <= 2 * per_minute + 1  # all that was saved up, and what came meanwhile


@pytest.mark.parametrize("per_minute", [1, 7, 59, 60, 999])
def test_all_of_a_minute_may_be_used_at_once(per_minute: int) -> None:
    bucket = Bucket(per_minute, clock=lambda: 123_456.789)
    for left in range(per_minute, 0, -1):
        assert bucket.remaining == left
        assert bucket.wait_s(1) == 0
        bucket.take(1)
    assert bucket.remaining == 0
    assert bucket.wait_s(1) == pytest.approx(60 / per_minute, rel=1e-3)


# --- replicas -----------------------------------------------------------------------------------


async def test_a_replica_that_is_down_is_passed_over(tmp_path: Path) -> None:
    down, up = FakeUpstream([refused()] * 5), FakeUpstream([reply(200, OK, JSON) for _ in range(5)])
    async with client_for(gateway(tmp_path, chatd=[down, up])) as client:
        for _ in range(3):
            response = await client.post("/v1/chat/completions", content=b"{}")
            assert response.status_code == 200
    assert (len(down.received), len(up.received)) == (1, 3)


async def test_with_every_replica_down_the_answer_is_503_and_names_the_daemon(tmp_path: Path) -> None:
    async with client_for(gateway(tmp_path, chatd=[FakeUpstream([refused("chatd")])])) as client:
        response = await client.post("/v1/chat/completions", content=b"{}")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "chatd_down")
    assert response.headers["retry-after"] == "1"


async def test_what_may_have_been_done_is_repeated_only_where_that_does_no_harm(tmp_path: Path) -> None:
    broken = [refused(maybe_done=True)] * 2
    chatd, other = FakeUpstream(list(broken)), FakeUpstream([reply(200, OK, JSON)])
    embedd = FakeUpstream([refused(maybe_done=True), reply(200, OK, JSON)])
    async with client_for(gateway(tmp_path, chatd=[chatd, other], embedd=[embedd])) as client:
        assert (await client.post("/v1/chat/completions", content=b"{}")).status_code == 503
        assert (await client.post("/v1/embeddings", content=b"{}")).status_code == 200
    assert (len(chatd.received), len(other.received), len(embedd.received)) == (1, 0, 2)


async def test_a_stream_is_relayed_as_it_comes_and_its_connection_given_back(tmp_path: Path) -> None:
    closed: list[bool] = []

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"data: %d\n\n" % number

    async def close() -> None:
        closed.append(True)

    head = [(b"content-type", b"text/event-stream"), (b"connection", b"close"), (b"x-run-id", b"r")]
    upstream = FakeUpstream([Reply(200, head, chunks(), close)])
    async with client_for(gateway(tmp_path, chatd=[upstream])) as client:
        response = await client.post("/v1/chat/completions", content=b"{}")
    assert response.text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert response.headers["x-run-id"] == "r"
    assert "connection" not in response.headers
    assert closed == [True]


async def test_an_error_of_a_daemon_passes_unchanged(tmp_path: Path) -> None:
    body = b'{"error":{"message":"no","type":"conflict_error","code":"c","param":null,"request_id":"x"}}'
    upstream = FakeUpstream([reply(409, body, JSON)])
    async with client_for(gateway(tmp_path, vectord=[upstream])) as client:
        response = await client.put("/v1/collections/a", content=b"{}")
    assert (response.status_code, response.content) == (409, body)


async def test_a_verdict_on_a_run_says_whether_it_was_recorded(tmp_path: Path) -> None:
    verdict = {
        "ok": True,
        "verdict": "accepted",
        "findings": [],
        "kind": "fill",
        "validator": {"name": "fill", "version": "1", "policy_version": "1"},
        "elapsed_ms": 0.1,
    }
    answer = httpx.Response(200, json=verdict).content
    upstream = FakeUpstream([reply(200, answer, JSON), reply(200, answer, JSON)])
    async with client_for(gateway(tmp_path, validators=[upstream])) as client:
        with_run = await client.post("/v1/validate", content=b'{"kind":"fill","run_id":"r1"}')
        without = await client.post("/v1/validate", content=b"{}")
    assert with_run.json() == without.json() == verdict
    assert with_run.headers["x-verdict-recorded"] == "false"  # no distill listens in this test
    assert "x-verdict-recorded" not in without.headers
