"""Embedding a collection's texts again, by another model."""

from schemas.vectors import ReembedRequest, ReembedState
from services import daemon
from vectord.routes.parts import LimitedDep, Name, ReembedsDep

routes = daemon.router()


@routes.post("/v1/collections/{name}/reembed", status_code=202, response_model_exclude_none=True)
async def start_reembed(
    name: Name, body: ReembedRequest, reembeds: ReembedsDep, limited: LimitedDep
) -> ReembedState:
    """Begin to embed every text again; the old vectors are searched until the new ones are all there."""
    return await reembeds.start(name, body, limited)


@routes.get("/v1/collections/{name}/reembed", response_model_exclude_none=True)
async def get_reembed(name: Name, reembeds: ReembedsDep) -> ReembedState:
    """How far it is."""
    return reembeds.state(name)
