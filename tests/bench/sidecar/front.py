"""The front of the chain that is measured against: a route that passes a body on with httpx."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response


class State(TypedDict):
    client: httpx.AsyncClient


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    async with httpx.AsyncClient(base_url=os.environ["SIDECAR_URL"], timeout=60.0, trust_env=False) as client:
        yield {"client": client}


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/embed")
async def embed(request: Request) -> Response:
    client: httpx.AsyncClient = request.state.client
    answer = await client.post(
        "/embed", content=await request.body(), headers={"content-type": "application/json"}
    )
    return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["FRONT_PORT"]), access_log=False, log_level="warning")
