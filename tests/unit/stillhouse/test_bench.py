"""Load from the command line: counted, timed, and failed aloud."""

import json
from collections.abc import Callable

import pytest
from typer.testing import Result

from services.testing import free_port
from tests.unit.stillhouse.conftest import StubGateway

Run = Callable[..., Result]
BUSY = {"error": {"message": "later", "type": "rate_limit_error", "code": "rate_limited"}}


def test_it_asks_for_each_target_and_tells_what_came_of_it(run: Run, gateway: StubGateway) -> None:
    gateway.answers = {"POST /v1/embeddings": [(200, {})], "POST /v1/validate": [(200, {})]}
    result = run("bench", "--seconds", "0.3", "--connections", "3", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert list(told) == ["embeddings", "validate"]
    for one in told.values():
        assert one["failures"] == {}
        assert one["requests"] > 0
        assert 0 < one["p50_ms"] <= one["p95_ms"] <= one["p99_ms"]
    assert sum(one["requests"] for one in told.values()) == len(gateway.requests)
    assert gateway.requests[0][3]["model"] == "all-minilm"


def test_a_request_that_fails_fails_the_run_and_is_named(run: Run, gateway: StubGateway) -> None:
    gateway.answers = {"POST /v1/collections/notes/search": [(429, BUSY)]}
    result = run("bench", "search", "--collection", "notes", "--role", "welder", "--seconds", "0.2")
    assert result.exit_code == 1
    assert "429 rate_limited" in result.stdout
    assert gateway.requests[0][3]["role"] == "welder"


def test_the_key_is_presented(run: Run, gateway: StubGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_API_KEY", "sh-mine")
    gateway.answers = {"POST /v1/chat/completions": [(200, {})]}
    assert run("bench", "chat", "--seconds", "0.2").exit_code == 0
    assert gateway.requests[0][2]["authorization"] == "Bearer sh-mine"


@pytest.mark.usefixtures("socket_enabled")
def test_without_a_gateway_it_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_GATEWAY_URL", f"http://127.0.0.1:{free_port()}")
    result = run("bench", "validate", "--seconds", "0.2")
    assert result.exit_code == 1
    assert "no connection to" in result.stderr


def test_a_search_needs_a_collection(run: Run) -> None:
    result = run("bench", "search")
    assert result.exit_code == 2
    assert "--collection" in result.stderr
