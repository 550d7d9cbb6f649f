"""The role catalogue."""

from schemas.vectors import RoleCatalogue
from services import daemon
from vectord.routes.parts import EngineDep, LimitedDep

routes = daemon.router()


@routes.put("/v1/roles")
async def put_roles(body: RoleCatalogue, engine: EngineDep, limited: LimitedDep) -> RoleCatalogue:
    """Replace the role catalogue."""
    return await engine.set_catalogue(body, limited)


@routes.get("/v1/roles")
async def get_roles(engine: EngineDep) -> RoleCatalogue:
    """The role catalogue; empty until one is put."""
    return engine.catalogue()
