"""Every daemon fails in one shape: 400, 404, 405, 413 and 500, with nothing of ours leaking out."""

import importlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas.errors import ErrorEnvelope
from services.daemon import Daemon
from services.testing import client_for
from tests.generate import DAEMONS, settings_type

pytestmark = pytest.mark.anyio

BODY_BYTES_MAX = 4096

POST_ROUTES = {
    "embedd": "/v1/embeddings",
    "vectord": "/v1/retrieve",
    "chatd": "/v1/chat/completions",
    "distill": "/v1/feedback",
    "validators": "/v1/validate",
}


def build(daemon: str, data: Path, **options: Any) -> Daemon:
    settings = settings_type(daemon)(data=data, body_bytes_max=BODY_BYTES_MAX)
    app: Daemon = importlib.import_module(f"{daemon}.app").create_app(settings, **options)
    return app


@pytest.fixture(params=DAEMONS)
async def daemon(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[str, httpx.AsyncClient]]:
    app = build(request.param, tmp_path)

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError("an internal detail")

    async with client_for(app) as client:
        yield request.param, client


def check(response: httpx.Response, status: int, kind: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = ErrorEnvelope.model_validate_json(response.content).error
    assert error.type == kind
    assert error.request_id == response.headers["x-request-id"] == "fixed-id"
    assert "detail" not in response.json()
    assert "Traceback" not in response.text


ID = {"x-request-id": "fixed-id"}


async def test_unknown_route(daemon: tuple[str, httpx.AsyncClient]) -> None:
    check(await daemon[1].get("/v1/nowhere", headers=ID), 404, "not_found_error")


async def test_wrong_method(daemon: tuple[str, httpx.AsyncClient]) -> None:
    check(await daemon[1].delete("/healthz", headers=ID), 405, "invalid_request_error")


async def test_crash(daemon: tuple[str, httpx.AsyncClient]) -> None:
    response = await daemon[1].get("/crash", headers=ID)
    check(response, 500, "internal_error")
    assert "internal detail" not in response.text


async def test_body_too_large(daemon: tuple[str, httpx.AsyncClient]) -> None:
    path = POST_ROUTES.get(daemon[0], "/v1/embeddings")
    response = await daemon[1].post(path, content=b"x" * (BODY_BYTES_MAX + 1), headers=ID)
    check(response, 413, "invalid_request_error")


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"a": NaN}', b"\xff\xfe", b'"text"'])
async def test_malformed_body(daemon: tuple[str, httpx.AsyncClient], content: bytes) -> None:
    name, client = daemon
    if name not in POST_ROUTES:  # the gateway passes bodies on, modeld answers them in Ollama's shape
        return
    headers = {**ID, "content-type": "application/json"}
    check(
        await client.post(POST_ROUTES[name], content=content, headers=headers), 400, "invalid_request_error"
    )


async def test_health_metrics_and_openapi(daemon: tuple[str, httpx.AsyncClient]) -> None:
    name, client = daemon
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    ready = await client.get("/readyz")
    assert ready.status_code in (200, 503)
    for state in ready.json()["dependencies"].values():
        assert state["ok"] or state["reason"]
    metrics = await client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "process_resident_memory_bytes" in metrics.text
    assert (await client.get("/openapi.json")).json()["info"]["title"] == name
