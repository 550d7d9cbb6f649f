"""Embeddings through a real gateway, two real embedds and a real model."""

import base64
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.keys import KeyGrant, KeyStore
from tests.processes import Running, running

pytestmark = pytest.mark.enable_socket

MODEL = "all-minilm"


@dataclass(frozen=True)
class Row:
    """A gateway with two replicas of embedd behind it, and a key."""

    gateway: Running
    embedds: tuple[Running, Running]
    key: str

    def client(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.gateway.url, headers=headers, timeout=30, trust_env=False)


@pytest.fixture(scope="module")
def modeld(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running("modeld", tmp_path_factory.mktemp("modeld")) as process:
        yield process


@contextmanager
def started(folder: Path, ollama_url: str) -> Iterator[Row]:
    key, _ = KeyStore(folder / "data").create(KeyGrant(name="tests", scopes=("embed",)))
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(running("embedd", folder, env={"OLLAMA_HOST": ollama_url})) for _ in "ab"
        )
        env = {"GATEWAY_EMBEDD_URLS": f"{one.url},{two.url}"}
        yield Row(stack.enter_context(running("gateway", folder, env=env)), (one, two), key)


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory, modeld: Running) -> Iterator[Row]:
    with started(tmp_path_factory.mktemp("row"), modeld.url) as it:
        yield it


@pytest.fixture
def mortal(tmp_path: Path, modeld: Running) -> Iterator[Row]:
    """A row of its own, for a test that kills."""
    with started(tmp_path, modeld.url) as it:
        yield it


def metric(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics", trust_env=False, timeout=5).text
    return float(text.partition(f"\n{name} ")[2].split()[0])


def embed(client: httpx.Client, texts: Any, **more: Any) -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": MODEL, "input": texts, **more})


def test_the_short_way_and_the_long_way_give_the_same_answer(row: Row) -> None:
    texts = [f"text number {number}" for number in range(9)]
    padded = [*texts, *(f"another {number}" for number in range(150))]  # too many for the short way
    with row.client() as client:
        short = embed(client, texts).json()
        long = embed(client, padded).json()
        again = embed(client, texts)
        coded = embed(client, texts, encoding_format="base64").json()
    assert [item["index"] for item in short["data"]] == list(range(9))
    assert [item["embedding"] for item in short["data"]] == [
        item["embedding"] for item in long["data"][: len(texts)]
    ]
    assert again.headers["x-cache"] == "hits=9 misses=0"
    assert again.json() == short
    for plain, packed in zip(short["data"], coded["data"], strict=True):
        values = struct.unpack("<384f", base64.b64decode(packed["embedding"]))
        assert values == pytest.approx(plain["embedding"], rel=1e-6)
    shares = [metric(embedd.url, "embedd_cache_entries") for embedd in row.embedds]
    assert all(shares), "each replica holds its own share"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"model": "none", "input": "x"}, 404, "model_not_found", "model"),
        ({"model": MODEL, "input": ["a", "", "b"]}, 400, "invalid_request", "input.1"),
        ({"model": MODEL, "input": [1, 2]}, 400, "token_input", "input"),
        ({"model": MODEL, "input": "x", "dimensions": 9999}, 400, "invalid_request", "dimensions"),
        ({"model": MODEL, "input": "x", "encoding_format": "hex"}, 400, "invalid_request", "encoding_format"),
        ({"model": MODEL, "input": []}, 400, "invalid_request", "input"),
        ({"input": "x"}, 400, "invalid_request", "model"),
        ([1], 400, "invalid_request", None),
    ],
)
def test_refusals_are_those_of_embedd(row: Row, body: Any, status: int, code: str, param: str | None) -> None:
    with row.client() as client:
        response = client.post("/v1/embeddings", json=body, headers={"x-request-id": "r-7"})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["request_id"] == response.headers["x-request-id"] == "r-7"


def test_keys_are_asked_for_on_the_short_way_too(row: Row) -> None:
    with httpx.Client(base_url=row.gateway.url, timeout=10, trust_env=False) as client:
        assert embed(client, "x").status_code == 401
        assert (
            client.get("/v1/collections", headers={"authorization": f"Bearer {row.key}"}).status_code == 403
        )


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("application/jsonx", 400),
        ("text/plain", 400),
    ],
)
def test_a_body_is_read_as_what_it_is_said_to_be(row: Row, said: str, status: int) -> None:
    headers = {"authorization": f"Bearer {row.key}", "content-type": said}
    with httpx.Client(base_url=row.gateway.url, timeout=30, trust_env=False) as client:
        body = json.dumps({"model": MODEL, "input": "x"})
        assert client.post("/v1/embeddings", content=body, headers=headers).status_code == status


def test_requests_sent_at_once_are_answered_in_order(row: Row) -> None:
    requests = b""
    for number in range(3):
        body = json.dumps({"model": MODEL, "input": f"pipelined {number}"}).encode()
        requests += (
            b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer %s\r\nx-request-id: p%d\r\ncontent-length: %d\r\n\r\n%s"
            % (row.key.encode(), number, len(body), body)
        )
    host, _, port = row.gateway.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(requests[:-5])
        time.sleep(0.1)
        connection.sendall(requests[-5:])
        received = b""
        while received.count(b'"total_tokens"') < 3:
            data = connection.recv(65536)
            assert data
            received += data
    ids = [line.split(b": ")[1] for line in received.split(b"\r\n") if line.startswith(b"x-request-id")]
    assert ids == [b"p0", b"p1", b"p2"]


def test_a_caller_that_waits_for_leave_to_send_its_body_gets_it(row: Row) -> None:
    body = json.dumps({"model": MODEL, "input": "may I"}).encode()
    head = (
        b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"expect: 100-continue\r\nauthorization: Bearer %s\r\ncontent-length: %d\r\n\r\n"
        % (row.key.encode(), len(body))
    )
    host, _, port = row.gateway.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_callers_that_leave_leave_nothing_behind(row: Row) -> None:
    host, _, port = row.gateway.url.removeprefix("http://").partition(":")
    for number in range(60):
        body = json.dumps(
            {"model": MODEL, "input": [f"leaving {number} {part}" for part in range(20)]}
        ).encode()
        head = (
            b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n" % (row.key.encode(), len(body))
        )
        connection = socket.create_connection((host, int(port)), timeout=10)
        connection.sendall(head + (body if number % 3 else body[:20]))
        connection.close()
    deadline = time.monotonic() + 20
    while metric(row.gateway.url, "http_requests_in_flight") != 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with row.client() as client:
        assert embed(client, "still here").status_code == 200
    for embedd in row.embedds:
        assert metric(embedd.url, "embedd_waiting_texts") == 0


def test_a_killed_replica_costs_no_caller_an_answer(mortal: Row) -> None:
    statuses: list[int] = []
    stop = threading.Event()

    def keep_asking(name: int) -> None:
        with mortal.client() as client:
            number = 0
            while not stop.is_set():
                number += 1
                texts = [f"warm {number % 10}", f"cold {name} {number}"]
                statuses.append(embed(client, texts).status_code)

    threads = [threading.Thread(target=keep_asking, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    try:
        while len(statuses) < 50:
            time.sleep(0.01)
        mortal.embedds[0].kill()
        enough = len(statuses) + 100
        while len(statuses) < enough:
            time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}


def test_with_every_replica_gone_the_answer_names_embedd(mortal: Row) -> None:
    for embedd in mortal.embedds:
        embedd.kill()
    with mortal.client() as client:
        response = embed(client, "x")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "embedd_down")
        assert response.headers["retry-after"]
