"""Chat through gateway and chatd, everything on, over a provider that answers at once."""

import os
from pathlib import Path
from typing import Final

import pytest

from tests.bench.chat.house import House, body_of, house
from tests.bench.chat.litellm import proxy
from tests.bench.chat.streams import Plan, stream
from tests.bench.chat.upstream import TOKENS
from tests.bench.load import Load, Outcome
from tests.bench.wrk import offered

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket, pytest.mark.timeout(900)]

ROUNDS: Final = 3
RATE_MIN: Final = 2500.0
LITELLM_RATIO_MIN: Final = 20.0
ADDED_P50_MS_MAX: Final = 2.0
RSS_MB_MAX: Final = 150.0
FIRST_P99_MS_MAX: Final = 30.0
REQUESTS: Final = int(os.environ.get("CHAT_REQUESTS", "100000"))
"""So many are asked before chatd's memory is looked at; the bar is meant for a million."""


def measured(it: House, load: Load, folder: Path) -> tuple[Outcome, dict[str, float]]:
    """The round in the middle, and each daemon's processor time for a request, in microseconds."""
    offered(load, folder)  # connections, and what is made at the first use
    before = it.cpu_s()
    rounds = [offered(load, folder) for _ in range(ROUNDS)]
    requests = sum(each.requests for each in rounds)
    used = {name: (after - before[name]) / requests * 1e6 for name, after in it.cpu_s().items()}
    return Outcome.median(rounds), used


def told(used: dict[str, float]) -> str:
    return ", ".join(f"{name} {us:.0f} µs" for name, us in used.items())


def test_whole_answers(tmp_path: Path) -> None:
    with house(tmp_path) as it:
        straight = offered(it.load("instant", straight=True), tmp_path)
        chat, used = measured(it, it.load(), tmp_path)
        with proxy(it.upstream.url, tmp_path) as other:
            theirs = None if other is None else offered(other.load(), tmp_path)
        print(f"\nchat: {chat} ({told(used)} of processor each); the provider alone {straight}")
        if theirs is not None:
            print(f"LiteLLM: {theirs}; {chat.rate / theirs.rate:.1f} times as many")
        assert chat.rate >= RATE_MIN
        if theirs is None:
            pytest.skip("LITELLM_PYTHON names no environment with LiteLLM: nothing to compare with")
        assert chat.rate >= LITELLM_RATIO_MIN * theirs.rate


def test_one_connection(tmp_path: Path) -> None:
    with house(tmp_path) as it:
        straight = offered(it.load("instant", straight=True, connections=1), tmp_path)
        chat, _ = measured(it, it.load(connections=1), tmp_path)
    added_ms = chat.p50_ms - straight.p50_ms
    print(f"\n1 connection: {chat}; the provider alone {straight}; added {added_ms:.3f} ms at p50")
    assert added_ms <= ADDED_P50_MS_MAX


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_other_surfaces(tmp_path: Path, path: str) -> None:
    bodies = {
        "/v1/responses": '{"model":"fast","input":"Is the forklift shift filled?"}',
        "/v1/messages": '{"model":"fast","max_tokens":64,"messages":[{"role":"user","content":"Filled?"}]}',
    }
    with house(tmp_path) as it:
        load = Load(it.gateway.url + path, [bodies[path]], it.headers, 32, 4.0)
        answers, used = measured(it, load, tmp_path)
    print(f"\n{path}: {answers} ({told(used)} of processor each)")
    assert answers.rate >= RATE_MIN / 2


def test_short_streams(tmp_path: Path) -> None:
    with house(tmp_path) as it:
        streams, used = measured(it, it.load(stream=True), tmp_path)
    print(f"\nstreams of 20 tokens at once: {streams} ({told(used)} of processor each)")
    assert not streams.failures


def test_many_streams(tmp_path: Path) -> None:
    with house(tmp_path) as it:
        plan = Plan(
            it.gateway.url + "/v1/chat/completions", body_of("mock/paced", stream=True), it.headers, 200, 800
        )
        before = it.cpu_s()
        outcome = stream(plan, tmp_path)
        used = {
            name: (after - before[name]) / (plan.streams * TOKENS) * 1e6 for name, after in it.cpu_s().items()
        }
    print(f"\n200 streams at once: {outcome} ({told(used)} of processor a token)")
    assert outcome.broken == 0
    assert outcome.first_p99_ms <= FIRST_P99_MS_MAX


def test_memory(tmp_path: Path) -> None:
    with house(tmp_path) as it:
        asked = 0
        first = it.rss_mb()
        while asked < REQUESTS:
            outcome = offered(it.load(seconds=10.0), tmp_path)
            assert not outcome.failures
            asked += outcome.requests
        last = it.rss_mb()
    print(f"\nchatd: {first:.0f} MB at first, {last:.0f} MB after {asked:,} requests")
    assert last <= RSS_MB_MAX
