"""An embedd that computes nothing: texts with words in common have vectors near to each other.

`python -m tests.stubs.words` serves it on `WORDS_PORT`, for real vectords that are to find what is alike.
"""

import base64
import os
import re
import zlib
from typing import Any, Final

import numpy as np
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

DIMENSION: Final = 96
DIGEST: Final = "sha256:words"


def vector(text: str) -> bytes:
    """The sum of its words' directions, each the same wherever the word stands."""
    total = np.full(DIMENSION, 1e-3, dtype=np.float32)
    for word in re.findall(r"\w+", text.lower()):
        seed = zlib.crc32(word.encode())
        total[seed % DIMENSION] += 1 if seed & 1 << 16 else -1
        total[(seed >> 8) % DIMENSION] += 1 if seed & 1 << 17 else -1
    unit: bytes = (total / np.linalg.norm(total)).tobytes()
    return unit


async def embeddings(request: Request) -> Response:
    body = await request.json()
    data = [
        {"object": "embedding", "index": number, "embedding": base64.b64encode(vector(text)).decode()}
        for number, text in enumerate(body["input"])
    ]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    answer = {"object": "list", "data": data, "model": body["model"], "usage": usage}
    return _json(answer, {"x-model-digest": DIGEST})


async def health(_: Request) -> Response:
    return _json({"status": "ok"})


def _json(value: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), media_type="application/json", headers=headers)


app = Starlette(
    routes=[Route("/v1/embeddings", embeddings, methods=["POST"]), Route("/healthz", health, methods=["GET"])]
)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["WORDS_PORT"]), access_log=False, log_level="warning")
