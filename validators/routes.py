"""`/v1/validate`, its batch form, and the list of what can be validated."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import orjson
from fastapi import Depends, Request
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from schemas.verdicts import ValidateRequest, ValidatorList, Verdict
from services import context, daemon
from services.errors import InvalidRequest, PlatformError, TooLarge
from validators.engine import Engine
from validators.settings import Settings

routes = daemon.router()


def _engine(request: Request) -> Engine:
    engine: Engine = request.state.engine
    return engine


def _settings(request: Request) -> Settings:
    settings: Settings = request.state.settings
    return settings


EngineDep = Annotated[Engine, Depends(_engine)]
SettingsDep = Annotated[Settings, Depends(_settings)]


@routes.post("/v1/validate", response_model_exclude_none=True)
async def validate(body: ValidateRequest, engine: EngineDep) -> Verdict:
    """The verdict on one artifact: 200 whatever the verdict is."""
    return await engine.validate(body)


@routes.post(
    "/v1/validate/batch",
    openapi_extra={"requestBody": {"required": True, "content": {"application/x-ndjson": {"schema": {}}}}},
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
    return StreamingResponse(_answers(lines, engine, settings), media_type="application/x-ndjson")


@routes.get("/v1/validators")
async def validators(engine: EngineDep) -> ValidatorList:
    """The kinds, their JSON Schemas, and every code with its severity and meaning."""
    return engine.describe()


async def _answers(lines: list[bytes], engine: Engine, settings: Settings) -> AsyncIterator[bytes]:
    current = context.current()
    request_id = current.request_id if current else None
    for line in lines:
        try:
            answer = (await engine.validate(_parse(line, settings))).model_dump_json(exclude_none=True)
        except PlatformError as error:
            answer = error.envelope(request_id).model_dump_json()
        yield answer.encode() + b"\n"
        await asyncio.sleep(0)  # a long batch leaves others their turn


def _parse(line: bytes, settings: Settings) -> ValidateRequest:
    if len(line) > settings.line_bytes_max:
        raise TooLarge(
            f"the line has {len(line)} bytes; at most {settings.line_bytes_max} are accepted",
            code="line_too_large",
        )
    try:
        return ValidateRequest.model_validate(orjson.loads(line))
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the line is not valid JSON: {error.msg}", code="invalid_json") from None
    except ValidationError as error:
        raise daemon.from_validation(error) from None
