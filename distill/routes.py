"""The routes of `distill`: parse, ask the engine, answer."""

import asyncio
import time
from typing import Annotated

from fastapi import Depends, Path, Query, Request
from fastapi.responses import FileResponse

from distill.engine import INLINE_BYTES_MAX, Engine, Outcome, Received
from distill.settings import Settings
from schemas.distill import (
    DatasetPage,
    EvidencePage,
    FeedbackRequest,
    Job,
    JobAccepted,
    JobRequest,
    ReviewRequest,
    RunView,
)
from schemas.evidence import Category
from schemas.review import Review
from schemas.runs import Feedback, RunsAccepted
from services import context, daemon
from services.errors import InvalidRequest, PlatformError
from services.middleware import Frame, error_headers
from services.protocol import DirectExchange

routes = daemon.router()

LIMIT_DEFAULT = 100
MEDIA_TYPES = {
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


EngineDep = Annotated[Engine, Depends(_engine)]
Limit = Annotated[int, Depends(_limit)]
EVIDENCE_ID = "^[0-9a-f]{64}$"
Cursor = Annotated[str | None, Query(pattern=EVIDENCE_ID)]

RUNS_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Run"}},
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    }
}


@routes.post("/v1/runs", openapi_extra=RUNS_BODY)
async def keep_runs(request: Request, engine: EngineDep) -> RunsAccepted:
    """Keep one record (`application/json`) or many (NDJSON, any other content type).

    Takes `stillhouse.run` and `stillhouse.verdict`. The answer comes once everything accepted is on disk.
    Sending a record again is harmless: it counts as accepted, and is in the log once.
    """
    body = await request.body()
    asking = context.current()
    principal = asking.principal if asking else None
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        return await engine.keep_record(body, principal)
    return await engine.keep_lines(body, principal)


class RunsDoor:
    """Takes records that are sent a few at a time, without a task for each; the rest takes the route.

    What is refused as a whole takes the route too, so that errors in a body are told in one place.
    """

    path = "/v1/runs"
    body_bytes_max = INLINE_BYTES_MAX

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def take(self, exchange: DirectExchange) -> bool:
        started = time.perf_counter()
        if self._frame.drain.draining:
            return False
        engine: Engine = exchange.scope["state"]["engine"]
        media_type = principal = None
        for name, value in exchange.scope["headers"]:
            if name == b"content-type":
                media_type = value.partition(b";")[0].strip().lower()
            elif name == b"x-stillhouse-principal":
                principal = value.decode("latin-1")
        try:
            received = engine.receive(exchange.body, principal, single=media_type == b"application/json")
            if not received.entries:
                return False
            kept = engine.offer(received)
        except PlatformError:
            return False
        exchange.scope["route"] = RUNS_ROUTE
        request = self._frame.begin(exchange.scope)

        def answer(kept: asyncio.Future[list[Outcome]]) -> None:
            status, headers, body = _answer(engine, received, kept, request.request_id)
            exchange.respond(status, headers, body)
            self._frame.end(exchange.scope, request, status, time.perf_counter() - started)

        kept.add_done_callback(answer)
        return True


def _answer(
    engine: Engine, received: Received, kept: asyncio.Future[list[Outcome]], request_id: str
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body for what became of records."""
    headers = [(b"content-type", b"application/json"), (b"x-request-id", request_id.encode())]
    try:
        return 200, headers, engine.accepted(received, kept.result()).model_dump_json().encode()
    except PlatformError as error:
        extra = [(name.encode(), value.encode()) for name, value in error_headers(error).items()]
        return error.status, headers + extra, error.envelope(request_id).model_dump_json().encode()


@routes.get("/v1/runs/{run_id}")
async def get_run(run_id: str, engine: EngineDep) -> RunView:
    """A run with its verdicts and feedback, its evidence id and, once scored, its category."""
    return await engine.run(run_id)


@routes.post("/v1/feedback")
async def keep_feedback(body: FeedbackRequest, engine: EngineDep) -> Feedback:
    """Keep what somebody says of a run or an episode."""
    return await engine.keep_feedback(body)


@routes.post("/v1/distill/jobs", status_code=202)
async def start_job(body: JobRequest, engine: EngineDep) -> JobAccepted:
    """Start a stage: `materialize`, `score` or `export`. One runs at a time; a second is refused (409)."""
    return JobAccepted(job_id=engine.jobs.start(body))


@routes.get("/v1/distill/jobs/{job_id}")
async def get_job(job_id: str, engine: EngineDep) -> Job:
    """How far a job is, and what it made."""
    return engine.jobs.get(job_id)


@routes.get("/v1/distill/evidence")
async def list_evidence(
    engine: EngineDep,
    limit: Limit,
    category: Category | None = None,
    cursor: Cursor = None,
) -> EvidencePage:
    """Evidence in the order of its ids, of one category if asked."""
    return await engine.evidence(category, limit, cursor)


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


@routes.get("/v1/distill/datasets")
async def list_datasets(
    engine: EngineDep, limit: Limit, cursor: Annotated[str | None, Query(max_length=128)] = None
) -> DatasetPage:
    """The exported datasets, by their manifests."""
    return await engine.datasets(limit, cursor)


@routes.get("/v1/distill/datasets/{dataset_id}/files/{name}", response_class=FileResponse)
async def get_file(dataset_id: str, name: str, engine: EngineDep) -> FileResponse:
    """A file of a dataset, streamed: one that the manifest names, or `manifest.json`."""
    path = await engine.dataset_file(dataset_id, name)
    return FileResponse(path, media_type=MEDIA_TYPES.get(path.suffix, "application/octet-stream"))


RUNS_ROUTE = next(route for route in routes.routes if getattr(route, "name", "") == keep_runs.__name__)
"""What logs and metrics know a request by that came through the door."""
