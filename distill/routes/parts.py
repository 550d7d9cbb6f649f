"""What routes are given beside the body: the engine, the length of a page, where it begins; and files."""

from pathlib import Path
from typing import Annotated, Final

from fastapi import Depends, Query, Request
from fastapi.responses import FileResponse

from distill.engine import Engine
from distill.settings import Settings
from services.errors import InvalidRequest

LIMIT_DEFAULT: Final = 100
EVIDENCE_ID: Final = "^[0-9a-f]{64}$"
MEDIA_TYPES: Final = {
    ".jsonl": "application/x-ndjson",
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
}


def _engine(request: Request) -> Engine:
    engine: Engine = request.state.engine
    return engine


def _limit(
    request: Request, limit: Annotated[int, Query(ge=1, description="Items on the page.")] = LIMIT_DEFAULT
) -> int:
    settings: Settings = request.state.settings
    if limit > settings.page_items_max:
        raise InvalidRequest(
            f"`limit` is {limit}; at most {settings.page_items_max} are given at once", param="limit"
        )
    return limit


def file_answer(path: Path) -> FileResponse:
    """A product, streamed, with the media type that its name tells."""
    return FileResponse(path, media_type=MEDIA_TYPES.get(path.suffix, "application/octet-stream"))


EngineDep = Annotated[Engine, Depends(_engine)]
Limit = Annotated[int, Depends(_limit)]
Cursor = Annotated[str | None, Query(pattern=EVIDENCE_ID)]
NameCursor = Annotated[str | None, Query(max_length=128)]
