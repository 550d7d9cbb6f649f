"""A chatd and a validators that think nothing: tasks of the repair loop, solved or not by their order's id.

`python -m tests.stubs.iterate` serves both on `ITERATE_PORT`. Every answer takes `LATENCY_MS`. Run ids count
up, so that no two answers are the same.
"""

import asyncio
import os
import zlib
from itertools import count
from typing import Any, Final

import orjson
import uvicorn
from starlette.types import Receive, Scope, Send

LATENCY_S: Final = float(os.environ.get("LATENCY_MS", "0")) / 1000
MISSED: Final = {
    "code": "fill.count_short",
    "severity": "error",
    "path": "/fills",
    "message": "one is missing",
}
NUMBERS: Final = count(1)


def verdict(*, ok: bool) -> dict[str, Any]:
    return {
        "ok": ok,
        "verdict": "accepted" if ok else "rejected",
        "findings": [] if ok else [MISSED],
        "kind": "fill",
        "validator": {"name": "fill", "version": "1", "policy_version": "1"},
        "roster": None,
        "elapsed_ms": 0.1,
    }


def attempt(model: str, *, ok: bool) -> dict[str, Any]:
    number = next(NUMBERS)
    return {
        "model": model,
        "artifact": {"order": number} if ok else "no",
        "findings": [] if ok else [MISSED],
        "usage": {"prompt_tokens": 20, "completion_tokens": 5, "cost_usd": 0.001},
        "run_id": f"stub-{number}",
        "verdict": "accepted" if ok else "rejected",
        "served_by": {"provider": "stub", "name": model, "digest": "sha256:stub"},
        "latency_ms": LATENCY_S * 1000,
    }


def iterate(body: dict[str, Any], episode_id: str) -> dict[str, Any]:
    key = str(body["validate"]["context"])
    tries = ([True], [False, True], [False, False])[zlib.crc32(key.encode()) % 3]
    attempts = [attempt(body["models"][0], ok=ok) for ok in tries]
    ok = tries[-1]
    return {
        "ok": ok,
        "artifact": attempts[-1]["artifact"],
        "verdict": verdict(ok=ok),
        "outcome": "failed" if not ok else "first_pass" if len(tries) == 1 else "repaired",
        "attempts": attempts,
        "episode_id": episode_id,
        "config_hash": "c" * 64,
    }


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    body += message.get("body", b"")
    await asyncio.sleep(LATENCY_S)
    answer: Any = {"status": "ok"}
    if scope["path"] == "/v1/iterate":
        headers = dict(scope["headers"])
        answer = iterate(orjson.loads(body), headers[b"x-episode-id"].decode())
    elif scope["path"] == "/v1/validate":
        answer = verdict(ok=isinstance(orjson.loads(body)["artifact"], dict))
    data = orjson.dumps(answer)
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": data})


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(os.environ["ITERATE_PORT"]),
        access_log=False,
        log_level="warning",
        lifespan="off",
        timeout_keep_alive=60,
    )
