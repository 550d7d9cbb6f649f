"""Many at once: batches of searches, facets over all that match, exports."""

from schemas.vectors import (
    ExportRequest,
    ExportResponse,
    FacetsRequest,
    FacetsResponse,
    SearchBatchRequest,
    SearchBatchResponse,
)
from services import daemon
from vectord.engine import facets as engine_facets
from vectord.engine import search_batch as engine_search_batch
from vectord.routes.parts import EngineDep, ExportsDep, LimitedDep, LimitsDep, Name

routes = daemon.router()


@routes.post("/v1/collections/{name}/search/batch", response_model_exclude_none=True)
async def search_batch(
    name: Name, body: SearchBatchRequest, engine: EngineDep, limits: LimitsDep, limited: LimitedDep
) -> SearchBatchResponse:
    """Several searches in one call, answered in order."""
    return await engine_search_batch(engine.searches, name, body, limited, limits)


@routes.post("/v1/collections/{name}/points/facets")
async def facets(
    name: Name, body: FacetsRequest, engine: EngineDep, limits: LimitsDep, limited: LimitedDep
) -> FacetsResponse:
    """How often each value of a field occurs among the points that match."""
    return await engine_facets(engine, name, body, limited, limits)


@routes.post("/v1/collections/{name}/points/export", response_model_exclude_none=True)
async def export_points(
    name: Name, body: ExportRequest, exports: ExportsDep, limited: LimitedDep
) -> ExportResponse:
    """A page of all points with their vectors; go on with its `cursor` until there is none."""
    return await exports.page(name, body, limited)
