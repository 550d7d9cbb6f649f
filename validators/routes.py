"""`/v1/validate`, its batch form, and the list of what can be validated.

A request in the usual form is read without a model, and answered without a task where its check is short.
Anything else takes the long way, which also says what is wrong with it; verdicts are the same on both.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final, NamedTuple

import orjson
from fastapi import Depends, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import JsonValue, ValidationError
from starlette.types import Receive, Scope, Send

from schemas.base import JsonObject
from schemas.verdicts import ValidateRequest, ValidatorList, Verdict
from services import context, daemon
from services.errors import InvalidRequest, PlatformError, TooLarge
from services.middleware import Frame
from services.protocol import DirectExchange, says_json
from validators.engine import Asked, Engine
from validators.settings import Settings

PATH: Final = "/v1/validate"
NDJSON: Final = "application/x-ndjson"
JSON: Final = "application/json"
SLICE_S: Final = 0.002
"""How long a batch works before it lets others have their turn."""

routes = daemon.router()


def _engine(request: Request) -> Engine:
    engine: Engine = request.state.engine
    return engine


def _settings(request: Request) -> Settings:
    settings: Settings = request.state.settings
    return settings


EngineDep = Annotated[Engine, Depends(_engine)]
SettingsDep = Annotated[Settings, Depends(_settings)]


@routes.post(PATH, response_model=Verdict)
async def validate(body: ValidateRequest, engine: EngineDep) -> Response:
    """The verdict on one artifact: 200 whatever the verdict is."""
    return Response((await engine.validate(body)).to_json(), media_type=JSON)


@routes.post(
    f"{PATH}/batch",
    response_class=Response,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}},
    openapi_extra={"requestBody": {"required": True, "content": {NDJSON: {"schema": {}}}}},
)
async def validate_batch(request: Request, engine: EngineDep, settings: SettingsDep) -> StreamingResponse:
    """NDJSON in, NDJSON out: for each line, in order, its verdict, or the error envelope of that line."""
    # Read as a whole (the body is bounded) before the first answer: a client that sends all of it before
    # it reads anything would otherwise wait for us while we wait for it.
    lines = [line for line in (await request.body()).split(b"\n") if line.strip()]
    if len(lines) > settings.batch_lines_max:
        raise TooLarge(
            f"the batch has {len(lines)} lines; at most {settings.batch_lines_max} are accepted",
            code="batch_too_long",
        )
    return BatchAnswer(_Batch(lines, engine, settings.line_bytes_max))


@routes.get("/v1/validators")
async def validators(engine: EngineDep) -> ValidatorList:
    """The kinds, their JSON Schemas, and every code with its severity and meaning."""
    return engine.describe()


# --- batches ----------------------------------------------------------------------------------


class _Batch:
    """Lines on their way to answers. Many short checks are done at a stretch, but none for long."""

    def __init__(self, lines: Sequence[bytes], engine: Engine, line_bytes_max: int) -> None:
        self._lines = lines
        self.engine = engine
        self._line_bytes_max = line_bytes_max
        current = context.current()
        self._request_id = current.request_id if current else None
        self._at = 0

    async def answers(self) -> AsyncIterator[bytes]:
        """The answers, several in a chunk. Whoever stops asking for chunks stops the work."""
        while self._at < len(self._lines):
            async with self.engine.turns.turn():
                chunk, long = self._stretch()
            if chunk:
                yield chunk
            if long is not None:
                yield await self._long(long)
            await asyncio.sleep(0)

    def _stretch(self) -> tuple[bytes, Asked | None]:
        """Answers until the time is over, or until a check that takes long, which comes second."""
        until = time.perf_counter() + SLICE_S
        answers: list[bytes] = []
        long = None
        while self._at < len(self._lines) and long is None and time.perf_counter() < until:
            line = self._lines[self._at]
            self._at += 1
            try:
                asked = self._parse(line)
                judgement = self.engine.validate_at_once(asked)
            except PlatformError as error:
                answers.append(self._refusal(error))
            else:
                if judgement is None:
                    long = asked
                else:
                    answers.append(judgement.to_json())
        return b"".join(answer + b"\n" for answer in answers), long

    async def _long(self, asked: Asked) -> bytes:
        try:
            return (await self.engine.validate(asked)).to_json() + b"\n"
        except PlatformError as error:
            return self._refusal(error) + b"\n"

    def _refusal(self, error: PlatformError) -> bytes:
        return error.envelope(self._request_id).model_dump_json().encode()

    def _parse(self, line: bytes) -> Asked:
        if len(line) > self._line_bytes_max:
            raise TooLarge(
                f"the line has {len(line)} bytes; at most {self._line_bytes_max} are accepted",
                code="line_too_large",
            )
        if (asked := usual(line)) is not None:
            return asked
        try:
            value = orjson.loads(line)
            if daemon.LONG_NUMBER.search(line):  # as on the other way: orjson reads these as floats
                value = json.loads(line)
            return ValidateRequest.model_validate(value)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"the line is not valid JSON: {error.msg}", code="invalid_json") from None
        except ValidationError as error:
            raise daemon.from_validation(error) from None


class BatchAnswer(StreamingResponse):
    """The answer to a batch, which has one of the few places for batches from its first line to its last."""

    def __init__(self, batch: _Batch) -> None:
        super().__init__(batch.answers(), media_type=NDJSON)
        self._turns = batch.engine.turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._turns.place():
            await super().__call__(scope, receive, send)


# --- the short way ----------------------------------------------------------------------------

FIELDS: Final = {"kind", "artifact", "context", "run_id"}
BRACKETS_MAX: Final = 100  # so the nesting is no deeper, which pydantic takes
DIGITS_ALIKE: Final = bytes.maketrans(b"123456789", b"000000000")
MAY_BE_UNSAFE: Final = b"0" * 16  # digits in a row, so perhaps a number that not every reader holds exactly
RUN_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Usual(NamedTuple):
    """A `ValidateRequest` in the usual form, read without the model."""

    kind: str
    artifact: JsonValue
    context: JsonObject


def usual(body: bytes) -> Usual | None:
    """What a body in the usual form asks for; None for any other, and for any that is wrong."""
    if MAY_BE_UNSAFE in body.translate(DIGITS_ALIKE) or body.count(b"{") + body.count(b"[") > BRACKETS_MAX:
        return None
    try:
        data: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(data, dict) or not data.keys() <= FIELDS or "artifact" not in data:
        return None
    kind, given, run_id = data.get("kind"), data.get("context", {}), data.get("run_id")
    usual_run = run_id is None or (isinstance(run_id, str) and RUN_ID.fullmatch(run_id))
    if not (kind and isinstance(kind, str) and isinstance(given, dict) and usual_run):
        return None
    return Usual(kind, data["artifact"], given)


ANSWER_TYPE: Final = (b"content-type", JSON.encode())


class ValidateDoor:
    """Takes short checks asked for in the usual form. What is refused takes the long way, which says why."""

    path = PATH
    body_bytes_max = 64 * 1024

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def take(self, exchange: DirectExchange) -> bool:
        """Whether the request is answered here."""
        scope = exchange.scope
        if self._frame.drain.draining or not says_json(scope):
            return False
        started = time.perf_counter()
        asked = usual(exchange.body)
        if asked is None:
            return False
        engine: Engine = scope["state"]["engine"]
        try:
            judgement = engine.validate_at_once(asked)
        except Exception:  # noqa: BLE001 - it will be raised again on the long way, which tells and logs it
            return False
        if judgement is None:
            return False
        scope["route"] = self  # metrics and logs know a matched route by its `path`
        request = self._frame.begin(scope)
        headers = (ANSWER_TYPE, (b"x-request-id", request.request_id.encode()))
        exchange.respond(200, headers, judgement.to_json())
        self._frame.end(scope, request, 200, time.perf_counter() - started)
        return True
