"""Calls that need the model: partly warm ones, new texts one by one, and thousands at once."""

from pathlib import Path

import numpy as np
import pytest

from tests.bench.house import WARM_TEXTS, MemoryWatch, body_of, house
from tests.bench.load import NUMBER, Load, Outcome, generate
from tests.bench.ollama_stub import vectors_of

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket, pytest.mark.timeout(300)]

ROUNDS = 3

PARTLY_WARM_RATE_MIN = 150.0
LATENCY_MS = 7.0
MISS_SHARE_MIN = 0.95
ADDED_MS_MAX = 2.0
BULK_TEXTS = 2048
BULK_GROWTH_MB_MAX = 150.0


def test_ninety_of_a_hundred_are_warm(tmp_path: Path) -> None:
    warm = WARM_TEXTS[:90]
    with house(tmp_path) as ours:
        ours.warm()
        calls, texts = ours.counts()
        answer = ours.embed([*warm, *(f"new text {number}" for number in range(10))])
        assert len(answer.json()["data"]) == 100
        assert answer.headers["x-cache"] == "hits=90 misses=10"
        assert ours.counts() == (calls + 1, texts + 10)
        rounds = [
            generate(
                ours.load([body_of([*warm, *(f"round {at}, {NUMBER}, {n}" for n in range(10))])]), tmp_path
            )
            for at in range(ROUNDS)
        ]
    median = Outcome.median(rounds)
    print(f"\n100 texts, 90 of them warm, floats: one upstream call of 10 texts; {median}")
    assert median.rate >= PARTLY_WARM_RATE_MIN


def test_new_texts_keep_the_model_busy(tmp_path: Path) -> None:
    with house(tmp_path, latency_ms=LATENCY_MS) as ours:
        ours.warm()
        rounds = [generate(ours.load([body_of([f"round {at}, {NUMBER}"])]), tmp_path) for at in range(ROUNDS)]
    median, limit = Outcome.median(rounds), 1000 / LATENCY_MS
    print(f"\nnew texts, 32 connections: {median}; {median.rate / limit:.3f} of what the model can do")
    assert median.rate >= MISS_SHARE_MIN * limit


def test_little_is_added_to_the_time_of_the_model(tmp_path: Path) -> None:
    def one_by_one(load: Load) -> Outcome:
        return generate(load, tmp_path)

    with house(tmp_path, latency_ms=LATENCY_MS) as ours:
        ours.warm()
        rounds = [
            (
                one_by_one(ours.load([body_of([f"ours {at}, {NUMBER}"])], connections=1)),
                one_by_one(
                    Load(f"{ours.stub.url}/api/embed", [body_of([f"direct {at}, {NUMBER}"])], connections=1)
                ),
            )
            for at in range(ROUNDS)
        ]
    through, direct = (Outcome.median([pair[n] for pair in rounds]) for n in (0, 1))
    added_ms = through.p50_ms - direct.p50_ms
    print(f"\nnew texts, 1 connection: {through}; the model alone {direct}; added {added_ms:.2f} ms at p50")
    assert added_ms <= ADDED_MS_MAX


def test_two_thousand_texts_at_once(tmp_path: Path) -> None:
    texts = [f"bulk text {number}" for number in range(BULK_TEXTS)]
    with house(tmp_path) as ours:
        ours.warm()
        with MemoryWatch({"gateway": ours.gateway, "embedd": ours.embedd}, interval_s=0.01) as memory:
            answer = ours.embed(texts)
    rows = answer.json()["data"]
    assert [row["index"] for row in rows] == list(range(BULK_TEXTS))
    np.testing.assert_allclose([row["embedding"] for row in rows], vectors_of(texts), atol=1e-6)
    growth = memory.growth()
    print(
        f"\n{BULK_TEXTS} new texts in one request: {answer.elapsed.total_seconds():.2f} s,"
        f" {len(answer.content) / 1e6:.0f} MB; grown at most by",
        ", ".join(f"{name} {megabytes:.0f} MB" for name, megabytes in growth.items()),
    )
    assert max(growth.values()) < BULK_GROWTH_MB_MAX
