"""The routes: parse, ask the engine, answer."""

from typing import Annotated

from fastapi import Depends, Path, Request

from schemas.vectors import (
    Collection,
    CollectionList,
    CollectionSpec,
    CountResponse,
    DeleteResponse,
    GetRequest,
    PointSelector,
    PointsResponse,
    RetrieveRequest,
    RetrieveResponse,
    RoleCatalogue,
    ScrollRequest,
    SearchRequest,
    SearchResponse,
    UpsertRequest,
    UpsertResponse,
)
from services import context, daemon
from vectord.engine import Engine, Limited

routes = daemon.router()


def _engine(request: Request) -> Engine:
    engine: Engine = request.state.engine
    return engine


async def _limited() -> Limited:
    current = context.current()
    return current.roles if current else None


EngineDep = Annotated[Engine, Depends(_engine)]
LimitedDep = Annotated[Limited, Depends(_limited)]
Name = Annotated[str, Path(description="The collection's name: `[a-z0-9][a-z0-9_-]{0,63}`.")]


@routes.put("/v1/collections/{name}")
async def put_collection(name: Name, body: CollectionSpec, engine: EngineDep) -> Collection:
    """Make a collection. The same again changes nothing; a different one is refused with 409."""
    return await engine.create(name, body)


@routes.get("/v1/collections")
async def list_collections(engine: EngineDep) -> CollectionList:
    """All collections, by name."""
    return await engine.all()


@routes.get("/v1/collections/{name}")
async def get_collection(name: Name, engine: EngineDep) -> Collection:
    """A collection as it stands."""
    return await engine.describe(name)


@routes.delete("/v1/collections/{name}")
async def delete_collection(name: Name, engine: EngineDep, limited: LimitedDep) -> Collection:
    """Delete a collection with everything in it; the answer is what it was."""
    return await engine.drop(name, limited)


@routes.put("/v1/collections/{name}/points")
async def put_points(
    name: Name, body: UpsertRequest, engine: EngineDep, limited: LimitedDep
) -> UpsertResponse:
    """Write points, all or none. A text without a vector is embedded by the collection's model."""
    return await engine.upsert(name, body, limited)


@routes.post("/v1/collections/{name}/points/get", response_model_exclude_none=True)
async def get_points(name: Name, body: GetRequest, engine: EngineDep, limited: LimitedDep) -> PointsResponse:
    """Points by `ids`, in their order, or the first page of those that match `filter`."""
    return await engine.get(name, body, limited)


@routes.post("/v1/collections/{name}/points/scroll", response_model_exclude_none=True)
async def scroll_points(
    name: Name, body: ScrollRequest, engine: EngineDep, limited: LimitedDep
) -> PointsResponse:
    """A page of points; go on with its `cursor` until there is none."""
    return await engine.scroll(name, body, limited)


@routes.post("/v1/collections/{name}/points/count")
async def count_points(
    name: Name, body: PointSelector, engine: EngineDep, limited: LimitedDep
) -> CountResponse:
    """How many points match, exactly."""
    return await engine.count(name, body, limited)


@routes.post("/v1/collections/{name}/points/delete")
async def delete_points(
    name: Name, body: PointSelector, engine: EngineDep, limited: LimitedDep
) -> DeleteResponse:
    """Delete points by `ids` or `filter`."""
    return await engine.delete(name, body, limited)


@routes.post("/v1/collections/{name}/search", response_model_exclude_none=True)
async def search(name: Name, body: SearchRequest, engine: EngineDep, limited: LimitedDep) -> SearchResponse:
    """The nearest points to a text or a vector."""
    return await engine.search(name, body, limited)


@routes.post("/v1/retrieve")
async def retrieve(body: RetrieveRequest, engine: EngineDep, limited: LimitedDep) -> RetrieveResponse:
    """One question to several collections, with a report of the role gate."""
    return await engine.retrieve(body, limited)


@routes.put("/v1/roles")
async def put_roles(body: RoleCatalogue, engine: EngineDep, limited: LimitedDep) -> RoleCatalogue:
    """Replace the role catalogue."""
    return await engine.set_catalogue(body, limited)


@routes.get("/v1/roles")
async def get_roles(engine: EngineDep) -> RoleCatalogue:
    """The role catalogue; empty until one is put."""
    return engine.catalogue()
