"""What waits for a person, and what the person decides."""

from typing import Annotated

from fastapi import Path

from distill.routes.parts import EVIDENCE_ID, Cursor, EngineDep, Limit
from schemas.distill import EvidencePage, ReviewRequest
from schemas.review import Review
from services import daemon

routes = daemon.router()


@routes.get("/v1/distill/review")
async def list_review(engine: EngineDep, limit: Limit, cursor: Cursor = None) -> EvidencePage:
    """The evidence that waits for a person's decision, in the order of its ids."""
    return await engine.review_queue(limit, cursor)


@routes.post("/v1/distill/review/{evidence_id}")
async def keep_review(
    evidence_id: Annotated[str, Path(pattern=EVIDENCE_ID)], body: ReviewRequest, engine: EngineDep
) -> Review:
    """Keep what somebody decides about a piece of evidence; the next `materialize` and `score` go by it."""
    return await engine.keep_review(evidence_id, body)
