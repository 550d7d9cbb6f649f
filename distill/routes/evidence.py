"""Evidence: listed by category."""

from distill.routes.parts import Cursor, EngineDep, Limit
from schemas.distill import EvidencePage
from schemas.evidence import Category
from services import daemon

routes = daemon.router()


@routes.get("/v1/distill/evidence")
async def list_evidence(
    engine: EngineDep,
    limit: Limit,
    category: Category | None = None,
    cursor: Cursor = None,
) -> EvidencePage:
    """Evidence in the order of its ids, of one category if asked."""
    return await engine.evidence(category, limit, cursor)
