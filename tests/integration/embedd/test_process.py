"""embedd as a process, between clients that hang up and an Ollama on a socket."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.testing import free_port
from tests.processes import running
from tests.stubs import ollama
from tests.stubs.ollama import OllamaStub, stubs
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.enable_socket]

AT_ONCE = 50


def body(*texts: str) -> dict[str, Any]:
    return {"model": "stub", "input": list(texts)}


async def test_a_restart_is_warm_and_a_new_model_is_not_served_old_vectors(tmp_path: Path) -> None:
    stub = OllamaStub(port=free_port())
    port = free_port()
    env = {"OLLAMA_HOST": stub.url}
    told: list[str] = []
    async with stubs(stub), httpx.AsyncClient(timeout=30.0, trust_env=False) as client:
        for digest in ("sha256:a", "sha256:a", "sha256:b"):
            stub.digest = digest
            with running("embedd", tmp_path, port=port, env=env) as embedd:
                answer = await client.post(f"{embedd.url}/v1/embeddings", json=body("a", "b"))
                told.append(f"{answer.headers['x-model-digest']} {answer.headers['x-cache']}")
                assert embedd.stop() == 0
    assert told == [
        "sha256:a hits=0 misses=2",
        "sha256:a hits=2 misses=0",
        "sha256:b hits=0 misses=2",
    ]


@pytest.mark.parametrize(
    "clients", [400, pytest.param(10_000, marks=[pytest.mark.bench, pytest.mark.timeout(300)])]
)
async def test_clients_that_hang_up_leave_nothing_behind(tmp_path: Path, clients: int) -> None:
    stub = OllamaStub(port=free_port())
    gate = asyncio.Event()
    stub.script.extend([ollama.when(gate)] * clients)
    env = {"OLLAMA_HOST": stub.url, "EMBEDD_LOG_LEVEL": "warning"}
    async with stubs(stub), httpx.AsyncClient(timeout=30.0, trust_env=False) as client:
        with running("embedd", tmp_path, env=env) as embedd:
            port = int(embedd.url.rpartition(":")[2])
            for start in range(0, clients, AT_ONCE):
                await asyncio.gather(*(hang_up(port, number) for number in range(start, start + AT_ONCE)))
            await until(lambda: stub.in_flight == 0)
            stub.script.clear()
            answer = await client.post(f"{embedd.url}/v1/embeddings", json=body("a", "shared 1"))
            figures = (await client.get(f"{embedd.url}/metrics")).text
            said = embedd.text()
    assert answer.status_code == 200
    assert "\nembedd_waiting_texts 0.0\n" in figures
    assert "http_requests_in_flight 0.0\n" in figures
    assert "error" not in said


async def hang_up(port: int, number: int) -> None:
    """Send a request and close the connection, sooner or later."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body(f"shared {number % 7}", f"only {number}")).encode()
    head = (
        "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    await writer.drain()
    await asyncio.sleep(0.002 * (number % 5))
    writer.transport.abort()
