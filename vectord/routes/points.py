"""Points: write, read, count, delete."""

from schemas.vectors import (
    CountResponse,
    DeleteResponse,
    GetRequest,
    PointSelector,
    PointsResponse,
    ScrollRequest,
    UpsertRequest,
    UpsertResponse,
)
from services import daemon
from vectord.routes.parts import EngineDep, LimitedDep, Name

routes = daemon.router()


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
