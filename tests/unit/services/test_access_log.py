"""The access log: one JSON line for each request, written many at a time."""

import asyncio
import io
import json

import pytest

from services.context import RequestContext
from services.telemetry import FLUSH_LINES, FLUSH_S, AccessLog

pytestmark = pytest.mark.anyio

REQUEST = RequestContext("r-1", "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "ops")


def write(log: AccessLog, count: int = 1) -> None:
    for _ in range(count):
        log.write(REQUEST, "/v1/runs/{run_id}", "GET", 200, 1.25)


async def test_a_line_says_who_what_and_how_long() -> None:
    stream = io.BytesIO()
    log = AccessLog("tinyd", "info")
    log.open(stream)
    write(log)
    assert stream.getvalue() == b"", "not yet"
    await asyncio.sleep(FLUSH_S * 2)
    line = json.loads(stream.getvalue())
    assert line.pop("ts").endswith("Z")
    assert line == {
        "route": "/v1/runs/{run_id}",
        "method": "GET",
        "status": 200,
        "duration_ms": 1.25,
        "event": "request",
        "level": "info",
        "daemon": "tinyd",
        "request_id": "r-1",
        "trace_id": "a" * 32,
        "principal": "ops",
    }


async def test_lines_do_not_pile_up() -> None:
    stream = io.BytesIO()
    log = AccessLog("tinyd", "info")
    log.open(stream)
    write(log, FLUSH_LINES)
    assert stream.getvalue().count(b"\n") == FLUSH_LINES
    log.flush()


async def test_a_quieter_level_writes_none() -> None:
    stream = io.BytesIO()
    log = AccessLog("tinyd", "warning")
    log.open(stream)
    write(log, FLUSH_LINES)
    assert stream.getvalue() == b""


async def test_a_reader_that_is_gone_harms_nobody() -> None:
    class Gone(io.BytesIO):
        def write(self, _: object) -> int:
            raise BrokenPipeError

    log = AccessLog("tinyd", "info")
    log.open(Gone())
    write(log, FLUSH_LINES)
