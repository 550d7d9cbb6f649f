"""An Ollama with two chat models: `strong` knows every answer, `small` only those to even questions.

`python -m tests.stubs.talkers` serves it on `TALKERS_PORT`. Questions end with a number, which is the answer.
"""

import os
import re
from typing import Any, Final

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

MODELS: Final = ("small", "strong")
QUESTION: Final = re.compile(r"number (\d+)")


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


async def chat(request: Request) -> Response:
    body = await request.json()
    asked = QUESTION.findall(body["messages"][-1]["content"])
    number = int(asked[-1])
    knows = body["model"].startswith("strong") or number % 2 == 0
    said = orjson.dumps({"n": number}).decode() if knows else "I do not know."
    return _json(
        {
            "message": {"role": "assistant", "content": said},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 5,
            "eval_count": 3,
        }
    )


async def tags(_: Request) -> Response:
    return _json({"models": [{"name": name, "digest": f"digest-{name}"} for name in MODELS]})


async def health(_: Request) -> Response:
    return _json({"status": "ok", "version": "0"})


app = Starlette(
    routes=[
        Route("/api/chat", chat, methods=["POST"]),
        Route("/api/tags", tags, methods=["GET"]),
        Route("/api/version", health, methods=["GET"]),
        Route("/healthz", health, methods=["GET"]),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["TALKERS_PORT"]), access_log=False, log_level="warning")
