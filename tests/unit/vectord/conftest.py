"""A vectord without a port, on a store of choice, with an embedd that counts letters."""

import base64
import contextlib
import json
import pathlib
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from services.clients import EmbeddClient
from services.http import PeerClient
from services.testing import client_for
from vectord.app import create_app
from vectord.backends import EdgeStore, FakeStore, Store
from vectord.settings import Settings

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass
class Embedd:
    """Speaks embedd's route: a text's vector is its normalised letter counts."""

    digest: str = "sha256:one"
    up: bool = True
    texts: list[str] = field(default_factory=list)
    calls: int = 0

    def client(self) -> EmbeddClient:
        transport = httpx.MockTransport(self._answer)
        return EmbeddClient(PeerClient("embedd", "http://embedd", transport=transport))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if not self.up:
            raise httpx.ConnectError("refused")
        if request.url.path == "/healthz":
            return httpx.Response(200, json={"status": "ok"})
        body = json.loads(request.content)
        if body["model"] != "letters":
            error = {
                "message": f"no model {body['model']!r}", "type": "not_found_error",
                "code": "model_not_found", "param": "model", "request_id": None,
            }  # fmt: skip
            return httpx.Response(404, json={"error": error})
        self.calls += 1
        self.texts += body["input"]
        data = [
            {"object": "embedding", "index": number, "embedding": encoded(text)}
            for number, text in enumerate(body["input"])
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        answer = {"object": "list", "data": data, "model": "letters", "usage": usage}
        return httpx.Response(200, json=answer, headers={"x-model-digest": self.digest})


def letters(text: str) -> list[float]:
    counts = [1e-3 + text.lower().count(letter) for letter in LETTERS]
    length = sum(count * count for count in counts) ** 0.5
    return [count / length for count in counts]


def encoded(text: str) -> str:
    return base64.b64encode(struct.pack(f"<{len(LETTERS)}f", *letters(text))).decode()


@dataclass
class Vectord:
    """A client with the few calls that every test makes."""

    http: httpx.AsyncClient

    async def call(
        self, method: str, path: str, body: Any = None, *, status: int = 200, roles: str | None = None
    ) -> Any:
        headers = {} if roles is None else {"x-stillhouse-roles": roles}
        answer = await self.http.request(method, f"/v1{path}", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def error(self, method: str, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
        answer = await self.call(method, path, body, **{"status": 400, **more})
        error: dict[str, Any] = answer["error"]
        return error

    async def put(self, name: str, *points: dict[str, Any], **more: Any) -> Any:
        return await self.call("PUT", f"/collections/{name}/points", {"points": list(points)}, **more)

    async def ids(self, name: str, body: dict[str, Any], **more: Any) -> list[str | int]:
        answer = await self.call("POST", f"/collections/{name}/search", body, **more)
        return [hit["id"] for hit in answer["hits"]]

    async def metric(self, name: str) -> float:
        text = (await self.http.get("/metrics")).text
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))


@pytest.fixture
def embedd() -> Embedd:
    return Embedd()


@pytest.fixture(params=[EdgeStore, FakeStore], ids=["edge", "fake"])
def store(request: pytest.FixtureRequest) -> Store:
    made: Callable[[], Store] = request.param
    return made()


Open = Callable[..., contextlib.AbstractAsyncContextManager[Vectord]]


@pytest.fixture
def open_vectord(tmp_path: pathlib.Path, embedd: Embedd, store: Store) -> Open:
    """Start a vectord; starting it again finds the same data."""

    @contextlib.asynccontextmanager
    async def start(given: Store | None = None, **settings: Any) -> AsyncIterator[Vectord]:
        app = create_app(
            Settings(**{"data": tmp_path, **settings}), store=given or store, embedd=embedd.client()
        )
        async with client_for(app) as http:
            yield Vectord(http)

    return start


@pytest.fixture
async def vectord(anyio_backend: str, open_vectord: Open) -> AsyncIterator[Vectord]:
    del anyio_backend
    async with open_vectord() as opened:
        yield opened
