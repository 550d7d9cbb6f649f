"""An Ollama that computes nothing: unit vectors made from the texts, after a set time, one text at a time.

`LATENCY_MS` is the time a text takes. `GET /stub/counts` tells how many calls and texts `/api/embed` has had;
`POST /stub/nothing` is the least that a server can do, for measuring clients.
"""

import asyncio
import os
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import uvicorn
from starlette.types import Receive, Scope, Send

MODEL: Final = "nomic-embed-text"
DIGEST: Final = "0a109f422b47e3a30ba2b10eca18548e944e8a23073ee3f3e947efcf3c45e59f"
DIMENSION: Final = 768
OFFSETS: Final = 1 << 16
NOISE: Final = np.random.default_rng(0).standard_normal(OFFSETS + DIMENSION).astype(np.float32)

Vectors = npt.NDArray[np.float32]


def vectors_of(texts: Sequence[str]) -> Vectors:
    """One unit vector a text, `(len(texts), DIMENSION)`; the same text always has the same one."""
    checksums = [zlib.crc32(text.encode()) for text in texts]
    rows = np.stack([_at(checksum % OFFSETS) + _at(checksum // OFFSETS) for checksum in checksums])
    result: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result


def _at(offset: int) -> Vectors:
    return NOISE[offset : offset + DIMENSION]


class Stub:
    """The ASGI application."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._worker = ThreadPoolExecutor(1)  # a thread sleeps more exactly than an event loop
        self._free_at = 0.0
        self._calls = 0
        self._texts = 0
        self._routes: dict[tuple[str, str], Callable[[bytes], Awaitable[Any]]] = {
            ("GET", "/healthz"): self._health,
            ("GET", "/api/version"): self._version,
            ("GET", "/api/tags"): self._tags,
            ("POST", "/api/embed"): self._embed,
            ("GET", "/stub/counts"): self._counts,
            ("POST", "/stub/nothing"): self._health,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        handler = self._routes.get((scope["method"], scope["path"]))
        if handler is None:
            status, answer = 404, orjson.dumps({"error": "not found"})
        else:
            status, answer = 200, orjson.dumps(await handler(body), option=orjson.OPT_SERIALIZE_NUMPY)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _health(self, _: bytes) -> Any:
        return {"status": "ok"}

    async def _version(self, _: bytes) -> Any:
        return {"version": "0.0.0"}

    async def _tags(self, _: bytes) -> Any:
        return {"models": [{"name": f"{MODEL}:latest", "model": f"{MODEL}:latest", "digest": DIGEST}]}

    async def _counts(self, _: bytes) -> Any:
        return {"calls": self._calls, "texts": self._texts}

    async def _embed(self, body: bytes) -> Any:
        request = orjson.loads(body)
        texts = [request["input"]] if isinstance(request["input"], str) else request["input"]
        self._calls += 1
        self._texts += len(texts)
        if self._latency_s:
            # From the planned end of the work before, so that late wake-ups do not add up.
            self._free_at = max(self._free_at, time.monotonic()) + self._latency_s * len(texts)
            await asyncio.get_running_loop().run_in_executor(self._worker, _sleep_until, self._free_at)
        return {
            "model": request["model"],
            "embeddings": vectors_of(texts),
            "total_duration": 1,
            "load_duration": 1,
            "prompt_eval_count": len(texts),
        }


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


if __name__ == "__main__":
    uvicorn.run(
        Stub(float(os.environ.get("LATENCY_MS", "0")) / 1000),
        port=int(os.environ["OLLAMA_STUB_PORT"]),
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
