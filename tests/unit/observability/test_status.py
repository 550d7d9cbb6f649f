"""`GET /v1/status`: every replica is asked, silent ones are told of, and nobody is asked too often."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric

from gateway.app import create_app
from gateway.backends import FakeProber, FakeUpstream
from gateway.engine import Board, Itself
from gateway.engine.fleet import Standing
from gateway.engine.replicas import Standings
from gateway.settings import Settings
from schemas.status import PlatformStatus, ReplicaStatus
from services.daemon import Daemon
from services.errors import Unavailable
from services.health import CHECK_TIMEOUT_S, Check, DependencyState, ReadyState, readiness
from services.keys import KeyGrant, KeyStore
from services.testing import client_for

pytestmark = pytest.mark.anyio

READY = ReadyState(status="ready", dependencies={}).model_dump_json().encode()
DEGRADED = (
    ReadyState(
        status="degraded",
        dependencies={"ollama": DependencyState(ok=False, required=False, reason="gone")},
    )
    .model_dump_json()
    .encode()
)
DISTILL = (
    b"distill_log_bytes 10.0\ndistill_waiting_bytes 2.0\ndistill_datasets 3.0\ndistill_job_running 1.0\n"
)
CHATD = (
    b"chatd_spool_bytes 7.0\nchatd_spool_records 1.0\nchatd_records_rejected_total 0.0\nchatd_waiting 4.0\n"
)


async def ready() -> ReadyState:
    return ReadyState(status="ready", dependencies={})


def own_metrics() -> list[Metric]:
    return [GaugeMetricFamily("http_requests_in_flight", "Requests being served.", 1)]


def board(prober: FakeProber, *, timeout_s: float = 30.0, **fleets: Sequence[Standing]) -> Board:
    itself = Itself("http://gateway", own_metrics, ready)
    standings: Standings = {name: partial(list, those) for name, those in fleets.items()}
    return Board(itself, standings, prober, timeout_s=timeout_s)


def answering(url: str, metrics: bytes, readyz: bytes = READY) -> dict[str, bytes]:
    return {f"{url}/metrics": metrics, f"{url}/readyz": readyz}


def only(status: PlatformStatus, daemon: str) -> ReplicaStatus:
    return next(one for one in status.daemons if one.name == daemon).replicas[0]


async def test_each_daemon_tells_what_it_has() -> None:
    prober = FakeProber(answering("http://d", DISTILL) | answering("http://c", CHATD, DEGRADED))
    status = await board(
        prober,
        distill=[Standing("http://d", 2, ejected=False)],
        chatd=[Standing("http://c", 0, ejected=True)],
    ).status()
    assert [daemon.name for daemon in status.daemons] == ["gateway", "distill", "chatd"]
    assert status.state == "degraded"
    distill, chatd = only(status, "distill"), only(status, "chatd")
    assert distill.log is not None
    assert (distill.log.bytes, distill.log.waiting_bytes, distill.from_gateway) == (10, 2, 2)
    assert distill.datasets is not None
    assert (distill.datasets.datasets, distill.datasets.job_running) == (3, True)
    assert chatd.spool is not None
    assert (chatd.spool.records, chatd.spool.bytes, chatd.waiting) == (1, 7, 4)
    assert (chatd.state, chatd.missing, chatd.ejected) == ("degraded", {"ollama": "gone"}, True)


async def test_a_replica_that_does_not_answer_matters_most_where_there_is_no_other() -> None:
    up, down = Standing("http://a", 0, ejected=False), Standing("http://b", 0, ejected=True)
    prober = FakeProber(answering("http://a", b"embedd_waiting_texts 0.0\n"))
    assert (await board(prober, embedd=[up, down]).status()).state == "degraded"
    status = await board(prober, embedd=[down]).status()
    assert status.state == "unavailable"
    replica = only(status, "embedd")
    assert (replica.state, replica.ejected) == ("silent", True)
    assert "does not answer" in replica.missing["/metrics"]


async def test_a_replica_that_hangs_is_given_up() -> None:
    class Hanging(FakeProber):
        async def read(self, url: str, path: str) -> bytes:  # noqa: ARG002 - whatever it is asked
            await asyncio.Event().wait()
            return b""

    hung = board(Hanging(), timeout_s=0.01, chatd=[Standing("http://c", 1, ejected=False)])
    replica = only(await hung.status(), "chatd")
    assert (replica.state, replica.missing) == ("silent", {"/metrics": "no answer within 0.01 s"})


async def test_whoever_waited_for_a_long_look_waits_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("gateway.engine.board.time.monotonic", lambda: now_s)

    class Slow(FakeProber):
        async def read(self, url: str, path: str) -> bytes:
            nonlocal now_s
            now_s += 10.0  # a frozen replica: the look takes longer than its result is kept
            await asyncio.sleep(0)
            return await super().read(url, path)

    prober = Slow(answering("http://c", CHATD))
    asked = board(prober, chatd=[Standing("http://c", 0, ejected=False)])
    first, *others = await asyncio.gather(*(asked.status() for _ in range(3)))
    assert all(one is first for one in others)
    assert len(prober.asked) == 2


def test_a_daemon_has_the_time_to_say_what_it_misses() -> None:
    assert Settings().status_timeout_s > CHECK_TIMEOUT_S


async def test_many_who_ask_at_once_cost_one_look() -> None:
    prober = FakeProber(answering("http://c", CHATD))
    asked = board(prober, chatd=[Standing("http://c", 0, ejected=False)])
    first, *others = await asyncio.gather(*(asked.status() for _ in range(5)))
    assert all(one is first for one in others)
    assert sorted(prober.asked) == ["http://c/metrics", "http://c/readyz"]


async def test_rates_are_of_the_time_since_the_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.engine.board.KEPT_S", 0.0)
    name = "http_server_request_duration_seconds"
    labels = 'http_route="/a",http_request_method="GET"'

    def metrics(good: int, bad: int) -> bytes:
        lines = [f'{name}_bucket{{{labels},le="{bound}"}} {good + bad}' for bound in ("0.01", "+Inf")]
        lines.append(f'{name}_count{{{labels},http_response_status_code="500"}} {bad}')
        return "\n".join(lines).encode() + b"\n"

    prober = FakeProber(answering("http://c", metrics(100, 0)))
    asked = board(prober, chatd=[Standing("http://c", 0, ejected=False)])
    assert only(await asked.status(), "chatd").requests_per_s is None, "nobody knows since when"
    prober.answers["http://c/metrics"] = metrics(105, 5)
    replica = only(await asked.status(), "chatd")
    assert replica.window_s is not None
    assert replica.requests_per_s == pytest.approx(10 / replica.window_s, rel=1e-2)
    assert replica.errors_per_s == pytest.approx(5 / replica.window_s, rel=1e-2)
    assert replica.latency is not None
    prober.answers["http://c/metrics"] = metrics(1, 0)  # another process on the same port
    assert only(await asked.status(), "chatd").requests_per_s is None


async def test_the_gateway_itself_is_told_of_through_the_same_checks() -> None:
    async def broken() -> None:
        raise Unavailable("the key file is broken")

    checks = {"keys": Check(broken, required=False)}
    itself = Itself("http://gateway", own_metrics, lambda: readiness(checks))
    replica = only(await Board(itself, {}, FakeProber(), timeout_s=30.0).status(), "gateway")
    assert (replica.state, replica.missing) == ("degraded", {"keys": "the key file is broken"})
    assert replica.in_flight == 1


async def test_who_waits_for_a_place_at_a_daemon_waits_in_the_gateway(tmp_path: Path) -> None:
    upstreams = {
        name: [FakeUpstream(waiting=3), FakeUpstream(waiting=number)]
        for number, name in enumerate(("embedd", "vectord", "chatd", "distill", "validators"))
    }
    app = create_app(Settings(data=tmp_path), upstreams=upstreams, prober=FakeProber())
    async with client_for(app) as client:
        status = PlatformStatus.model_validate_json((await client.get("/v1/status")).content)
        metrics = (await client.get("/metrics")).text
    assert 'gateway_upstream_waiting{daemon="chatd"} 5.0' in metrics
    assert only(status, "gateway").waiting == 4 * 3 + 1 + 2 + 3 + 4, (
        "embeddings wait in frames, not for places"
    )


async def test_the_route_needs_the_scope_admin_where_there_are_keys(tmp_path: Path) -> None:
    def app(data: Path) -> Daemon:
        upstreams = {
            name: [FakeUpstream()] for name in ("embedd", "vectord", "chatd", "distill", "validators")
        }
        return create_app(Settings(data=data), upstreams=upstreams, prober=FakeProber())

    async with client_for(app(tmp_path / "open")) as client:
        answer = await client.get("/v1/status")
    assert answer.status_code == 200
    status = PlatformStatus.model_validate_json(answer.content)
    assert status.daemons[0].name == "gateway"
    assert only(status, "gateway").overhead is None
    store = KeyStore(tmp_path)
    grants = (KeyGrant(name="talks", scopes=("chat",)), KeyGrant(name="minds", scopes=("admin",)))
    chat, admin = (store.create(grant)[0] for grant in grants)
    async with client_for(app(tmp_path)) as client:
        codes = [
            (await client.get("/v1/status", headers={"authorization": f"Bearer {key}"})).status_code
            for key in ("sh-nobody", chat, admin)
        ]
    assert codes == [401, 403, 200]
