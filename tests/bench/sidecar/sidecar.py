"""The end of the chain that is measured against: pydantic in, httpx to Ollama, pydantic out, no cache."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

import httpx
import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel


class State(TypedDict):
    client: httpx.AsyncClient


class EmbedRequest(BaseModel):
    model: str
    input: list[str]


class EmbedResponse(BaseModel):
    model: str
    dimension: int
    vectors: list[list[float]]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    async with httpx.AsyncClient(base_url=os.environ["OLLAMA_URL"], timeout=60.0, trust_env=False) as client:
        yield {"client": client}


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/embed")
async def embed(request: Request, body: EmbedRequest) -> EmbedResponse:
    client: httpx.AsyncClient = request.state.client
    answer = await client.post("/api/embed", json={"model": body.model, "input": body.input})
    vectors = answer.raise_for_status().json()["embeddings"]
    return EmbedResponse(model=body.model, dimension=len(vectors[0]), vectors=vectors)


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["SIDECAR_PORT"]), access_log=False, log_level="warning")
