"""`stillhouse vector migrate`: what it asks, and what it says at the end."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from stillhouse.commands import vector_migrate
from tests.unit.stillhouse.conftest import StubGateway

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_migrate, "POLL_S", 0.0)


def collection(**migration: Any) -> tuple[int, dict[str, Any]]:
    return 200, {
        "name": "c", "count": 7, "dimension": 4, "model": None, "model_digest": None, "distance": "cosine",
        "engine": "edge", "gated": False, "hybrid": True, "payload_indexes": {}, "index": "ready", "bytes": 1,
        "migration": migration or None,
    }  # fmt: skip


BEGUN = {"state": "running", "engine": "lance", "done": 0, "total": 7}


def test_it_follows_the_move_to_its_end(run: Run, gateway: StubGateway) -> None:
    gateway.answers["POST /v1/collections/c/migrate"] = [(202, BEGUN)]
    gateway.answers["GET /v1/collections/c"] = [
        collection(**BEGUN | {"done": 3}),
        collection(**BEGUN | {"state": "done", "done": 7, "recall": 0.987}),
    ]
    result = run("vector", "migrate", "c", "--to", "lance")
    assert result.exit_code == 0, result.output
    assert "c is on lance now: 7 points, recall@10 0.987" in result.stdout
    assert gateway.requests[0][3] == {"engine": "lance"}
    told = run("vector", "migrate", "c", "--to", "lance", "--json")
    assert json.loads(told.stdout) == {
        "collection": "c", "state": "done", "engine": "lance", "done": 7, "total": 7, "recall": 0.987
    }  # fmt: skip


def test_a_failed_move_says_that_nothing_changed(run: Run, gateway: StubGateway) -> None:
    gateway.answers["POST /v1/collections/c/migrate"] = [(202, BEGUN)]
    gateway.answers["GET /v1/collections/c"] = [collection(**BEGUN | {"state": "failed", "error": "full"})]
    result = run("vector", "migrate", "c", "--to", "lance")
    assert result.exit_code == 1
    assert "'c' is as it was: full" in result.stderr


def test_a_restart_meanwhile_is_told(run: Run, gateway: StubGateway) -> None:
    gateway.answers["POST /v1/collections/c/migrate"] = [(202, BEGUN)]
    gateway.answers["GET /v1/collections/c"] = [collection()]
    result = run("vector", "migrate", "c", "--to", "lance")
    assert result.exit_code == 1
    assert "started anew" in result.stderr


def test_an_engine_that_does_not_exist_is_a_wrong_option(run: Run) -> None:
    assert run("vector", "migrate", "c", "--to", "faiss").exit_code == 2
