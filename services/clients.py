"""Typed clients of our own daemons: models in, models out, the peer's errors raised again."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from schemas.embeddings import EmbeddingRequest, EmbeddingResponse
from schemas.iterate import IterateRequest, IterateResponse
from schemas.runs import RunsAccepted
from schemas.vectors import (
    Collection,
    CollectionList,
    CollectionSpec,
    DeleteResponse,
    GetRequest,
    PointSelector,
    PointsResponse,
    RetrieveRequest,
    RetrieveResponse,
    RoleCatalogue,
    ScrollRequest,
    UpsertRequest,
    UpsertResponse,
)
from schemas.verdicts import ValidateRequest, ValidatorList, Verdict
from services.errors import UpstreamError
from services.http import PeerClient, answer_of


class _Client:
    """Owns the connection to one peer."""

    def __init__(self, peer: PeerClient) -> None:
        self.peer = peer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.peer.__aexit__()

    async def ping(self) -> None:
        """Raise, with the reason, unless the peer's process serves."""
        await self.peer.ping()


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors as little-endian float32 bytes, in the order of the texts, and the model that made them."""

    vectors: list[bytes]
    model_digest: str
    prompt_tokens: int


class EmbeddClient(_Client):
    async def embed(self, model: str, texts: Sequence[str]) -> Embedded:
        """Embed `texts`. Repeats nothing by itself: `embedd` caches, so asking again is cheap."""
        body = EmbeddingRequest(model=model, input=list(texts), encoding_format="base64")
        response = await self.peer.send(
            "POST",
            "/v1/embeddings",
            headers={"content-type": "application/json"},
            content=body.model_dump_json(exclude_none=True).encode(),
            idempotent=True,
        )
        answer = answer_of(self.peer.peer, response, EmbeddingResponse)
        if [item.index for item in answer.data] != list(range(len(texts))):
            raise UpstreamError(f"embedd answered {len(answer.data)} vectors for {len(texts)} texts")
        return Embedded(
            vectors=[base64.b64decode(str(item.embedding)) for item in answer.data],
            model_digest=response.headers["x-model-digest"],
            prompt_tokens=answer.usage.prompt_tokens,
        )


class VectordClient(_Client):
    async def retrieve(self, request: RetrieveRequest) -> RetrieveResponse:
        return await self.peer.call("POST", "/v1/retrieve", RetrieveResponse, body=request, idempotent=True)

    async def collections(self) -> CollectionList:
        return await self.peer.call("GET", "/v1/collections", CollectionList)

    async def create(self, name: str, spec: CollectionSpec) -> Collection:
        """Make a collection. The same again does nothing, another specification is a `Conflict`."""
        return await self.peer.call("PUT", f"/v1/collections/{name}", Collection, body=spec)

    async def roles(self) -> RoleCatalogue:
        return await self.peer.call("GET", "/v1/roles", RoleCatalogue)

    async def upsert(self, name: str, request: UpsertRequest) -> UpsertResponse:
        """Write points, all or none. An error's `param` names the point: `points.3.text`."""
        return await self.peer.call("PUT", f"/v1/collections/{name}/points", UpsertResponse, body=request)

    async def points(self, name: str, request: GetRequest) -> PointsResponse:
        """Points by ids, those that are not there left out."""
        path = f"/v1/collections/{name}/points/get"
        return await self.peer.call("POST", path, PointsResponse, body=request, idempotent=True)

    async def scroll(self, name: str, request: ScrollRequest) -> PointsResponse:
        """A page of points; its cursor asks for the next."""
        path = f"/v1/collections/{name}/points/scroll"
        return await self.peer.call("POST", path, PointsResponse, body=request, idempotent=True)

    async def delete(self, name: str, request: PointSelector) -> DeleteResponse:
        path = f"/v1/collections/{name}/points/delete"
        return await self.peer.call("POST", path, DeleteResponse, body=request, idempotent=True)


class ValidatorsClient(_Client):
    async def validate(self, request: ValidateRequest) -> Verdict:
        return await self.peer.call("POST", "/v1/validate", Verdict, body=request, idempotent=True)

    async def kinds(self) -> ValidatorList:
        """The kinds of artifact that can be judged, and what is known of each."""
        return await self.peer.call("GET", "/v1/validators", ValidatorList)


class ChatdClient(_Client):
    async def iterate(self, request: IterateRequest, episode_id: str) -> IterateResponse:
        """Have an artifact made, validated and repaired; its runs are recorded under `episode_id`."""
        response = await self.peer.send(
            "POST",
            "/v1/iterate",
            headers={"content-type": "application/json", "x-episode-id": episode_id},
            content=request.model_dump_json(exclude_none=True, by_alias=True).encode(),
        )
        return answer_of(self.peer.peer, response, IterateResponse)


class DistillClient(_Client):
    async def append(self, lines: Sequence[bytes]) -> RunsAccepted:
        """Hand over records as JSONL lines. Safe to repeat: distill knows a record by its id."""
        response = await self.peer.send(
            "POST",
            "/v1/runs",
            headers={"content-type": "application/x-ndjson"},
            content=b"".join(lines),
            idempotent=True,
        )
        return answer_of(self.peer.peer, response, RunsAccepted)
