"""Records of runs and what is said of them: kept, and given back."""

import asyncio
import time
from typing import Annotated

from fastapi import Query, Request

from distill.engine import INLINE_BYTES_MAX, Engine, Outcome, Received
from distill.routes.parts import EngineDep
from schemas.distill import FeedbackRequest, RunView
from schemas.runs import Feedback, RunsAccepted
from services import context, daemon
from services.errors import PlatformError
from services.middleware import Frame, error_headers
from services.protocol import DirectExchange

routes = daemon.router()

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
async def get_run(
    run_id: str,
    engine: EngineDep,
    *,
    life: Annotated[bool, Query(description="Tell what became of it too, which takes longer.")] = False,
) -> RunView:
    """A run with its verdicts and feedback, its evidence id and, once scored, its category.

    With `life`, also its evidence, the other runs of its episode, the exported rows that hold it and the
    replays of it.
    """
    return await engine.run(run_id, life=life)


@routes.post("/v1/feedback")
async def keep_feedback(body: FeedbackRequest, engine: EngineDep) -> Feedback:
    """Keep what somebody says of a run or an episode."""
    return await engine.keep_feedback(body)


RUNS_ROUTE = next(route for route in routes.routes if getattr(route, "name", "") == keep_runs.__name__)
"""What logs and metrics know a request by that came through the door."""
