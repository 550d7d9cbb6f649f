"""Evidence: listed and searched."""

from typing import Annotated

from fastapi import Query

from distill.engine.search import Wanted
from distill.routes.parts import Cursor, EngineDep, Limit
from schemas.base import Timestamp
from schemas.distill import EvidencePage
from schemas.evidence import Category
from services import daemon
from services.errors import InvalidRequest

routes = daemon.router()

WORDS_MAX = 8

Value = Annotated[str | None, Query(min_length=1, max_length=256)]
Text = Annotated[
    str | None,
    Query(min_length=1, max_length=256, description="Words that are all in the input or the output."),
]


@routes.get("/v1/distill/evidence")
async def list_evidence(
    engine: EngineDep,
    limit: Limit,
    *,
    category: Category | None = None,
    role: Value = None,
    kind: Annotated[str | None, Query(max_length=256, description="Kind of task.")] = None,
    code: Annotated[str | None, Query(max_length=256, description="A reason or a finding.")] = None,
    model: Annotated[str | None, Query(max_length=256, description="`name` or `provider/name`.")] = None,
    episode_id: Value = None,
    run_id: Value = None,
    since: Timestamp | None = None,
    until: Timestamp | None = None,
    q: Text = None,
    cursor: Cursor = None,
) -> EvidencePage:
    """Evidence in the order of its ids: all of it, or what fits everything that is asked for."""
    wanted = Wanted(
        category=category,
        role=role,
        kind=kind,
        code=code,
        model=model,
        episode_id=episode_id,
        run_id=run_id,
        since=since,
        until=until,
        words=_words(q),
    )
    return await engine.evidence(wanted, limit, cursor)


def _words(text: str | None) -> tuple[str, ...]:
    words = tuple(text.split()) if text is not None else ()
    if len(words) > WORDS_MAX:
        raise InvalidRequest(f"`q` has {len(words)} words; at most {WORDS_MAX} are looked for", param="q")
    return words
