"""`stillhouse status --watch`: a table on a terminal, lines elsewhere, JSON for programs."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
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
