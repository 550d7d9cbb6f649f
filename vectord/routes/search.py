"""Search in one collection, and retrieve from several."""

from schemas.vectors import RetrieveRequest, RetrieveResponse, SearchRequest, SearchResponse
from services import daemon
from vectord.routes.parts import EngineDep, LimitedDep, Name

routes = daemon.router()


@routes.post("/v1/collections/{name}/search", response_model_exclude_none=True)
async def search(name: Name, body: SearchRequest, engine: EngineDep, limited: LimitedDep) -> SearchResponse:
    """The nearest points to a text or a vector."""
    return await engine.search(name, body, limited)


@routes.post("/v1/retrieve")
async def retrieve(body: RetrieveRequest, engine: EngineDep, limited: LimitedDep) -> RetrieveResponse:
    """One question to several collections, with a report of the role gate."""
    return await engine.retrieve(body, limited)
