"""What waits for a person, and what the person decides."""

from typing import Annotated, Literal

from fastapi import Depends, Path, Query

from distill.engine.review.desk import Ask
from distill.routes.parts import EVIDENCE_ID, EngineDep, Limit
from schemas.distill import Agreement, Name, ReviewItem, ReviewPage, ReviewRequest
from schemas.review import Review
from services import daemon

routes = daemon.router()

Cursor = Annotated[str | None, Query(pattern="^([0-9]{1,7}-)?[0-9a-f]{64}$")]
EvidenceId = Annotated[str, Path(pattern=EVIDENCE_ID)]


def _ask(
    limit: Limit,
    cursor: Cursor = None,
    order: Annotated[
        Literal["value", "id"], Query(description="The most valuable decisions first, or by id.")
    ] = "value",
    role: Annotated[Name | None, Query(description="Of this job role alone.")] = None,
    undecided_by: Annotated[
        Name | None,
        Query(
            description="Leave out what this reviewer decided, and keep what others decided since the last"
            " `score`: for a second opinion."
        ),
    ] = None,
) -> Ask:
    return Ask(order, limit, cursor, role, undecided_by)


@routes.get("/v1/distill/review")
async def list_review(engine: EngineDep, ask: Annotated[Ask, Depends(_ask)]) -> ReviewPage:
    """The evidence that waits for a person's decision.

    The order stays as the last `score` made it: decisions take pieces out and move none.
    """
    return await engine.desk.page(ask)


@routes.get("/v1/distill/review/agreement")
async def get_agreement(engine: EngineDep) -> Agreement:
    """How far reviewers agree beyond chance, over everything that two or more of them decided."""
    return await engine.desk.agreement()


@routes.get("/v1/distill/review/{evidence_id}")
async def get_review(evidence_id: EvidenceId, engine: EngineDep) -> ReviewItem:
    """A piece of evidence with all decisions on it."""
    return await engine.desk.item(evidence_id)


@routes.post("/v1/distill/review/{evidence_id}")
async def keep_review(evidence_id: EvidenceId, body: ReviewRequest, engine: EngineDep) -> Review:
    """Keep what somebody decides about a piece of evidence; the next `materialize` and `score` go by it."""
    return await engine.desk.decide(evidence_id, body)
