"""What replicas add: one embedd with one model backend against four with one each, behind the gateway."""

import time
from pathlib import Path

import pytest

from tests.bench.house import body_of
from tests.bench.load import NUMBER, Load, Outcome, generate
from tests.chaos.town import Town, town

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket]

TEXT_MS = 20.0
REPLICAS = 4
CONNECTIONS = 64
SECONDS = 10.0
WARM_UP_S = 2.0
SCALING_MIN = 3.6


def cold_load(one: Town, seconds: float) -> Load:
    """Of one text a request, each of which no other has."""
    body = body_of([f"at {time.monotonic_ns()}, {NUMBER}"])
    headers = {**one.headers, "content-type": "application/json"}
    return Load(f"{one.urls[0]}/v1/embeddings", [body], headers, CONNECTIONS, seconds)


def measured(folder: Path, replicas: int) -> Outcome:
    with town(
        folder,
        daemons=["embedd"],
        replicas={"embedd": replicas},
        ollamas=replicas,
        latency_ms=TEXT_MS,
    ) as one:
        generate(cold_load(one, WARM_UP_S), folder)
        outcome = generate(cold_load(one, SECONDS), folder)
    assert not outcome.failures, outcome
    return outcome


def test_four_replicas_embed_four_times_as_much(tmp_path: Path) -> None:
    one = measured(tmp_path / "one", 1)
    four = measured(tmp_path / "four", REPLICAS)
    factor = four.rate / one.rate
    print(f"\n{TEXT_MS:g} ms a text: one replica {one}, {REPLICAS} {four}: {factor:.2f} ×")
    assert factor >= SCALING_MIN
