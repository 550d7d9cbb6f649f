"""Collections on their way to another engine."""

from schemas.vectors import MigrateRequest, Migration
from services import daemon
from vectord.routes.parts import EngineDep, LimitedDep, Name

routes = daemon.router()


@routes.post("/v1/collections/{name}/migrate", status_code=202)
async def migrate(name: Name, body: MigrateRequest, engine: EngineDep, limited: LimitedDep) -> Migration:
    """Begin to move the collection to another engine. GET it to see how far that is."""
    return await engine.migrate(name, body.engine, limited)
