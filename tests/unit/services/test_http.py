"""The client between daemons: pooled, bounded, with the peer's own errors coming out of it."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from schemas.embeddings import EmbeddingUsage
from services import context
from services.errors import Conflict, NotFound, Overloaded, Unavailable, UpstreamError, UpstreamTimeout
from services.http import Limits, PeerClient, Timeouts

pytestmark = pytest.mark.anyio

Handler = Callable[[httpx.Request], httpx.Response]


def peer(handler: Handler, **options: object) -> PeerClient:
    return PeerClient("peerd", "http://peerd", transport=httpx.MockTransport(handler), **options)  # type: ignore[arg-type]


def envelope(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"error": {"message": "said so", "type": "conflict_error", "code": code, "param": "a.b"}}
    return httpx.Response(status, json=body, headers=headers)


async def test_a_typed_answer_comes_back() -> None:
    async with peer(lambda _: httpx.Response(200, json={"prompt_tokens": 3, "total_tokens": 3})) as client:
        assert (await client.call("GET", "/x", EmbeddingUsage)).total_tokens == 3


async def test_the_peers_refusal_is_raised_again() -> None:
    async with peer(lambda _: envelope(409, "taken")) as client:
        with pytest.raises(Conflict) as caught:
            await client.call("GET", "/x", EmbeddingUsage)
    assert (caught.value.code, caught.value.param, caught.value.message) == ("taken", "a.b", "said so")


async def test_retry_after_is_passed_on() -> None:
    async with peer(lambda _: envelope(429, "full", **{"retry-after": "7"})) as client:
        with pytest.raises(Overloaded) as caught:
            await client.call("GET", "/x", EmbeddingUsage)
    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(500, text="<html>oops"),
        httpx.Response(200, json={"something": "else"}),
        httpx.Response(418, json={"error": "plain"}),
    ],
)
async def test_nonsense_is_an_upstream_error(response: httpx.Response) -> None:
    async with peer(lambda _: response) as client:
        with pytest.raises(UpstreamError):
            await client.call("GET", "/x", EmbeddingUsage)


AT_ONCE = Timeouts(restart_s=0.0)


async def test_a_peer_that_is_down_is_named() -> None:
    async with peer(refuse, timeouts=AT_ONCE) as client:
        with pytest.raises(Unavailable, match="peerd does not answer at http://peerd") as caught:
            await client.send("GET", "/x")
    assert caught.value.code == "peerd_down"


def refuse(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def stopping(_: httpx.Request) -> httpx.Response:
    return envelope(503, "draining", **{"x-stillhouse-draining": "1"})


@pytest.mark.parametrize("away", [refuse, stopping])
async def test_a_peer_that_restarts_is_waited_for(away: Handler) -> None:
    """Whatever the call would do: it was not begun."""
    tries: list[str] = []

    def back_at_the_third(request: httpx.Request) -> httpx.Response:
        tries.append(request.content.decode())
        return away(request) if len(tries) < 3 else httpx.Response(200, json={})

    async with peer(back_at_the_third, timeouts=Timeouts(restart_s=30.0)) as client:
        assert (await client.send("POST", "/x", content=b"all of it")).status_code == 200
    assert tries == ["all of it"] * 3


@pytest.mark.parametrize("away", [refuse, stopping])
async def test_a_peer_that_stays_away_is_waited_for_once(away: Handler) -> None:
    tries: list[str] = []
    here = False

    def counting(request: httpx.Request) -> httpx.Response:
        tries.append(request.method)
        return httpx.Response(200, json={}) if here else away(request)

    async with peer(counting, timeouts=Timeouts(restart_s=0.2)) as client:
        with pytest.raises(Unavailable):
            await client.call("POST", "/x", EmbeddingUsage)
        assert len(tries) > 1
        tries.clear()
        with pytest.raises(Unavailable):
            await client.call("POST", "/x", EmbeddingUsage)
        assert len(tries) == 1, "from here on calls fail at once"
        here = True
        await client.send("GET", "/x")
        here = False
        tries.clear()
        with pytest.raises(Unavailable):
            await client.call("POST", "/x", EmbeddingUsage)
        assert len(tries) > 1, "it was there meanwhile"


async def test_a_peer_that_is_full_is_not_asked_again() -> None:
    tries: list[str] = []

    def full(request: httpx.Request) -> httpx.Response:
        tries.append(request.method)
        return envelope(503, "spool_full")

    async with peer(full) as client:
        with pytest.raises(Unavailable):
            await client.call("GET", "/x", EmbeddingUsage)
    assert len(tries) == 1


async def test_who_waits_for_a_peer_is_told_that_it_is_away_and_not_slow() -> None:
    async with peer(refuse, timeouts=Timeouts(total_s=2.0, restart_s=30.0)) as client:
        with pytest.raises(Unavailable):
            await client.send("GET", "/x")


async def test_an_idempotent_call_survives_a_broken_connection() -> None:
    tries: list[int] = []

    def flaky(_: httpx.Request) -> httpx.Response:
        tries.append(1)
        if len(tries) == 1:
            raise httpx.RemoteProtocolError("gone")
        return httpx.Response(200, json={})

    async with peer(flaky) as client:
        assert (await client.send("POST", "/x", idempotent=True)).status_code == 200
        tries.clear()
        with pytest.raises(UpstreamError, match="broke"):
            await client.send("POST", "/x")


async def test_a_slow_peer_is_given_up_on() -> None:
    async def stall(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError

    transport = httpx.MockTransport(stall)
    async with PeerClient(
        "peerd", "http://peerd", timeouts=Timeouts(total_s=0.05), transport=transport
    ) as client:
        with pytest.raises(UpstreamTimeout, match="peerd did not answer in time"):
            await client.send("GET", "/x")


async def test_calls_beyond_the_limit_wait_and_beyond_that_are_refused() -> None:
    release = asyncio.Event()

    async def hold(_: httpx.Request) -> httpx.Response:
        await release.wait()
        return httpx.Response(200, json={})

    limits = Limits(concurrency_max=1, waiting_max=1)
    transport = httpx.MockTransport(hold)
    async with PeerClient("peerd", "http://peerd", limits=limits, transport=transport) as client:
        calls = [asyncio.ensure_future(client.send("GET", "/x")) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="at most 1 may"):
            await client.send("GET", "/x")
        release.set()
        assert [call.status_code for call in await asyncio.gather(*calls)] == [200, 200]
        assert (await client.send("GET", "/x")).status_code == 200


async def test_who_asks_is_handed_on() -> None:
    seen: list[httpx.Headers] = []

    def look(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(404, json={"error": {"message": "m", "type": "not_found_error", "code": "c"}})

    context.enter(
        context.RequestContext("req-9", "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "ops", ("welder",))
    )
    async with peer(look) as client:
        with pytest.raises(NotFound):
            await client.call("GET", "/x", EmbeddingUsage)
    assert seen[0]["x-request-id"] == "req-9"
    assert seen[0]["traceparent"].startswith("00-aaaa")
    assert (seen[0]["x-stillhouse-principal"], seen[0]["x-stillhouse-roles"]) == ("ops", "welder")
