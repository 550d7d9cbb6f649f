"""A daemon that is reached past the gateway refuses, by every way in; its peers notice nothing of it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from services.testing import client_for
from tests.bench.ollama_stub import MODEL
from tests.integration.security.raw import Witness, witness
from tests.processes import Running, running, started
from validators.app import create_app
from validators.settings import Settings

pytestmark = pytest.mark.enable_socket

SECRET = "correct-horse-battery-staple"
TOKEN = {"STILLHOUSE_INTERNAL_TOKEN": SECRET}
EMBED = {"model": MODEL, "input": "hello"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running("tests.bench.ollama_stub", tmp_path_factory.mktemp("stub")) as it:
        yield it


@pytest.fixture(scope="module")
def embedd(tmp_path_factory: pytest.TempPathFactory, stub: Running) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("embedd")
    with running("embedd", folder, env={"OLLAMA_HOST": stub.url, **TOKEN}) as it:
        yield it


@pytest.mark.parametrize("shown", [None, "", "wrong", SECRET[:-1], SECRET + "x", SECRET.upper()])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/hop/embeddings", "/v1/nowhere"])
def test_who_does_not_show_the_secret_is_refused(embedd: Running, path: str, shown: str | None) -> None:
    headers = {} if shown is None else {"x-stillhouse-internal": shown}
    answer = httpx.post(f"{embedd.url}{path}", json=EMBED, headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "internal_token"
    assert SECRET not in answer.text


def test_probes_and_scrapers_need_no_secret(embedd: Running) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert httpx.get(f"{embedd.url}{path}", trust_env=False).status_code == 200
    assert SECRET not in httpx.get(f"{embedd.url}/metrics", trust_env=False).text


def test_a_peer_that_shows_it_is_served(embedd: Running) -> None:
    headers = {"x-stillhouse-internal": SECRET}
    answer = httpx.post(f"{embedd.url}/v1/embeddings", json=EMBED, headers=headers, trust_env=False)
    assert answer.status_code == 200


def test_the_gateway_and_vectord_reach_embedd(tmp_path: Path, embedd: Running) -> None:
    peers = {"VECTORD_EMBEDD_URL": embedd.url, **TOKEN}
    with running("vectord", tmp_path, env=peers) as vectord:
        env = {"GATEWAY_EMBEDD_URLS": embedd.url, "GATEWAY_VECTORD_URLS": vectord.url, **TOKEN}
        with running("gateway", tmp_path, env=env) as gateway, httpx.Client(base_url=gateway.url) as client:
            assert client.post("/v1/embeddings", json=EMBED).status_code == 200  # by the hop
            long = {**EMBED, "input": [f"text {number}" for number in range(200)]}
            assert client.post("/v1/embeddings", json=long).status_code == 200  # by the relay
            assert client.put("/v1/collections/notes", json={"model": MODEL}).status_code == 200
            point = {"points": [{"id": "1", "text": "hello"}]}
            assert client.put("/v1/collections/notes/points", json=point).status_code == 200
            search = {"text": "hello", "k": 1}
            hits = client.post("/v1/collections/notes/search", json=search).json()["hits"]
            assert [hit["id"] for hit in hits] == ["1"]
        assert SECRET not in vectord.text()


def test_secrets_that_differ_are_no_fault_of_the_caller(tmp_path: Path, embedd: Running) -> None:
    other = {"STILLHOUSE_INTERNAL_TOKEN": "another-secret-altogether"}
    with (
        running("vectord", tmp_path, env={"VECTORD_EMBEDD_URL": embedd.url}) as vectord,
        running(
            "gateway",
            tmp_path,
            env={"GATEWAY_EMBEDD_URLS": embedd.url, "GATEWAY_VECTORD_URLS": vectord.url, **other},
        ) as gateway,
        httpx.Client(base_url=gateway.url) as client,
    ):
        long = {**EMBED, "input": [f"text {number}" for number in range(200)]}
        for _ in range(2):  # over a new connection, and over one that is there
            answer = client.post("/v1/embeddings", json=long)
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "internal_token")
        assert client.post("/v1/embeddings", json=EMBED).status_code == 503
        made = client.put("/v1/collections/notes", json={"model": MODEL})
        assert (made.status_code, made.json()["error"]["code"]) == (502, "internal_token")


OLD, NEW = "first-secret-of-ours", "second-secret-of-ours"
ROTATION = (OLD, f"{OLD}\n{NEW}", f"{NEW}\n{OLD}", NEW)
"""What the file of the secret holds, from step to step, while one follows the other."""


async def ask(asked: str, asker: str) -> int:
    """The status with which a daemon answers another, given what stands in the file of each."""
    app = create_app(Settings(internal_token=SecretStr(asked)))
    headers = Settings(internal_token=SecretStr(asker)).internal_headers
    async with client_for(app) as client:
        return (await client.get("/v1/validators", headers=headers)).status_code


@pytest.mark.parametrize("step", range(len(ROTATION) - 1))
def test_a_secret_follows_another_without_a_refusal(step: int) -> None:
    """In a rolling restart some daemons are a step ahead of others."""
    before, after = ROTATION[step : step + 2]
    for asked, asker in ((before, after), (after, before), (after, after)):
        assert asyncio.run(ask(asked, asker)) == 200


@pytest.mark.parametrize(("asked", "asker"), [(0, 2), (0, 3), (3, 0), (3, 1)])
def test_a_step_that_is_left_out_is_told(asked: int, asker: int) -> None:
    assert asyncio.run(ask(ROTATION[asked], ROTATION[asker])) == 401


def test_neither_providers_nor_clients_get_to_see_it(tmp_path: Path) -> None:
    with witness() as provider:
        provider.answer = (200, {"content-type": "application/json"}, b'{"models":[]}')
        env = {"OLLAMA_HOST": provider.url, **TOKEN}
        with (
            running("chatd", tmp_path, env=env) as chatd,
            running("gateway", tmp_path, env={"GATEWAY_CHATD_URLS": chatd.url, **TOKEN}) as gateway,
            httpx.Client(base_url=gateway.url) as client,
        ):
            for answer in (client.post("/v1/chat/completions", json=CHAT), client.get("/v1/models")):
                assert answer.status_code != 401
                assert SECRET not in f"{answer.headers}{answer.text}"
            assert SECRET not in chatd.text() + gateway.text()
    assert provider.seen
    for _, headers, body in provider.seen:
        assert not any(name.startswith("x-stillhouse") for name in headers)
        assert SECRET not in f"{headers}{body!r}"


@pytest.mark.parametrize("secret", [f"{OLD} short", f"{OLD} {NEW} {OLD}x", " "])
def test_of_several_secrets_each_is_one_and_two_are_enough(secret: str) -> None:
    with pytest.raises(ValidationError, match="or two such"):
        Settings(internal_token=SecretStr(secret))


@pytest.mark.parametrize("module", ["embedd", "validators"])
def test_without_a_secret_a_daemon_serves_this_machine_only(tmp_path: Path, module: str) -> None:
    with started(module, tmp_path, env={f"{module.upper()}_HOST": "0.0.0.0"}) as child:
        assert child.process.wait(30) == 1
        assert "no_internal_token" in child.text()


def test_a_secret_that_is_easily_guessed_is_refused(tmp_path: Path) -> None:
    with started("embedd", tmp_path, env={"STILLHOUSE_INTERNAL_TOKEN": "short"}) as child:
        assert child.process.wait(30) == 2
        assert "STILLHOUSE_INTERNAL_TOKEN" in child.text()
        assert "short" not in child.text()


def test_a_witness_sees_what_it_is_sent() -> None:  # else the tests above would hold of nothing
    with witness() as it:
        httpx.get(it.url, headers={"x-stillhouse-internal": SECRET}, trust_env=False)
    assert it.seen[0][1]["x-stillhouse-internal"] == SECRET
    assert Witness().seen == []
