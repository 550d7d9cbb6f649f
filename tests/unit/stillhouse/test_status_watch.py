"""`stillhouse status --watch`: a table on a terminal, lines elsewhere, JSON for programs."""

import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from schemas.status import (
    CacheStatus,
    DaemonStatus,
    DatasetStatus,
    Latency,
    LogStatus,
    PlatformStatus,
    ReplicaStatus,
    SpoolStatus,
)
from services.testing import free_port
from tests.unit.stillhouse.conftest import StubGateway

Run = Callable[..., Result]
ROUTE = "GET /v1/status"
ROOT = Path(__file__).parents[3]
PATIENCE_S = 30.0
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
STYLE = re.compile(r"\x1b\[[0-9;]*m")
MOVE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")

FAST = Latency(p50_ms=0.21, p99_ms=12.4)
STATUS = PlatformStatus(
    as_of=datetime(2026, 11, 2, 6, 0, tzinfo=UTC),
    state="degraded",
    daemons=(
        DaemonStatus(
            name="embedd",
            replicas=(
                ReplicaStatus(
                    url="http://10.0.0.1:3101",
                    state="ready",
                    missing={},
                    requests_per_s=812.5,
                    errors_per_s=0.0,
                    latency=FAST,
                    in_flight=3,
                    waiting=2,
                    memory_bytes=64 * 2**20,
                    cache=CacheStatus(hits=3, misses=1, hit_share=0.75, bytes=2048),
                ),
                ReplicaStatus(
                    url="http://10.0.0.2:3101",
                    state="silent",
                    missing={"/metrics": "no answer"},
                    ejected=True,
                ),
            ),
        ),
        DaemonStatus(
            name="distill",
            replicas=(
                ReplicaStatus(
                    url="http://10.0.0.3:3104",
                    state="ready",
                    missing={},
                    overhead=FAST,
                    spool=SpoolStatus(records=5, bytes=0, refused=0),
                    log=LogStatus(bytes=5 * 2**20, waiting_bytes=0, appended=7),
                    datasets=DatasetStatus(datasets=2, job_running=True),
                ),
            ),
        ),
    ),
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.commands.status_watch.time.sleep", lambda _: None)


def told() -> Any:
    return json.loads(STATUS.model_dump_json())


def test_elsewhere_than_on_a_terminal_there_are_lines(run: Run, gateway: StubGateway) -> None:
    gateway.answers[ROUTE] = [(200, told())]
    result = run("status", "--watch", "--looks", "2")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert len(lines) == 6
    assert lines[0] == lines[3]
    assert "embedd http://10.0.0.1:3101 state=ready req/s=812.5" in lines[0]
    assert "cache 2 KiB, hits 75%" in lines[0]
    assert "state=silent, ejected" in lines[1]
    for words in ("overhead p99 12 ms", "spool 5 records", "log 5 MiB", "2 datasets, a stage runs"):
        assert words in lines[2]


def test_programs_get_an_object_a_look(run: Run, gateway: StubGateway) -> None:
    gateway.answers[ROUTE] = [(200, told())]
    result = run("status", "--watch", "--json", "--looks", "3")
    assert [PlatformStatus.model_validate_json(line) for line in result.output.splitlines()] == [STATUS] * 3


def test_on_a_terminal_there_is_a_table(
    run: Run, gateway: StubGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    gateway.answers[ROUTE] = [(200, told())]
    result = run("status", "--watch", "--looks", "1")
    assert result.exit_code == 0, result.output
    assert "degraded at" in result.output
    for words in ("embedd.2", "0.21 ms", "64 MiB", "req/s"):
        assert words in result.output


@pytest.mark.parametrize(
    ("columns", "beside"), [(200, ("more", "memory", "p50")), (80, ("waiting", "p99")), (40, ("req/s",))]
)
def test_a_terminal_of_any_width_shows_every_replica(
    run: Run, gateway: StubGateway, monkeypatch: pytest.MonkeyPatch, columns: int, beside: tuple[str, ...]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "24")
    gateway.answers[ROUTE] = [(200, told())]
    output = run("status", "--watch", "--looks", "1").output
    lines = MOVE.sub("\n", STYLE.sub("", output)).splitlines()
    assert max(map(len, lines)) <= columns
    for words in ("embedd ", "embedd.2", "distill ", "silent, ejected", "hits 75%", "no answer", *beside):
        assert any(words in line for line in lines), words


def test_a_gateway_that_is_away_is_asked_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, socket_enabled: None
) -> None:
    assert socket_enabled is None
    monkeypatch.setenv("STILLHOUSE_GATEWAY_URL", f"http://127.0.0.1:{free_port()}")
    result = run("status", "--watch", "--looks", "2", "--json")
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["state"] for line in result.output.splitlines()] == ["silent", "silent"]
    assert "no gateway answers" in run("status", "--watch", "--looks", "1").output


def test_what_goes_with_watch_is_refused_without_it(run: Run) -> None:
    for options in (("--interval", "2"), ("--looks", "1")):
        result = run("status", *options)
        assert result.exit_code == 2
        assert "--watch" in result.output


def test_a_key_that_may_not_ask_is_told_so_at_once(run: Run, gateway: StubGateway) -> None:
    error = {"message": "this needs the scope admin", "type": "permission_error", "code": "scope_missing"}
    gateway.answers[ROUTE] = [(403, {"error": error})]
    result = run("status", "--watch")
    assert result.exit_code == 1
    assert "needs the scope admin" in result.output


@contextmanager
def watching() -> Iterator[tuple[subprocess.Popen[bytes], Callable[[str], str]]]:
    """`stillhouse status --watch` on a terminal of 80 by 24, and what waits until it shows something."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "stillhouse", "status", "--watch", "--interval", "0.1"],
        env={**environment, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    seen = ""

    def until(words: str) -> str:
        """All that was shown, once these words were, since they were asked for last."""
        nonlocal seen
        deadline = time.monotonic() + PATIENCE_S
        begin = len(seen)
        while words not in seen[begin:]:
            assert time.monotonic() < deadline, seen
            if select.select([ours], [], [], 0.1)[0]:
                seen += os.read(ours, 65536).decode(errors="replace")
        return seen

    try:
        yield process, until
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_terminal_is_left_as_it_was_by_who_stops_watching(gateway: StubGateway) -> None:
    gateway.answers[ROUTE] = [(200, told())]
    with watching() as (process, until):
        shown = until("distill")
        assert HIDE_CURSOR in shown
        process.send_signal(signal.SIGINT)
        shown = until(SHOW_CURSOR)
        assert process.wait(PATIENCE_S) == 0
        assert "Traceback" not in shown


def test_a_gateway_that_dies_meanwhile_is_told_of_and_found_again(gateway: StubGateway) -> None:
    away = {"message": "it is being restarted", "type": "unavailable_error", "code": "gateway_down"}
    gateway.answers[ROUTE] = [(200, told())]
    with watching() as (process, until):
        until("distill")
        gateway.answers[ROUTE] = [(503, {"error": away})]
        until("it is being restarted")
        gateway.answers[ROUTE] = [(200, told())]
        until("distill")
        assert process.poll() is None
