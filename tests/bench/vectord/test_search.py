"""Searching GloVe through gateway and vectord, what HTTP adds to a search, and health meanwhile."""

import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import orjson
import pytest

from tests.bench.load import Load
from tests.bench.vectord.glove import Glove, encoded, glove, points
from tests.bench.vectord.house import House, house, show
from tests.bench.wrk import offered
from vectord.backends import EdgeStore, Query, ShardSpec, Where

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket]

WORDS = 399_000
QUERIES = 1000
TARGET = 0.99
FEW = {"must": [{"key": "n", "match": 7}]}


@pytest.fixture(scope="module")
def words() -> Glove:
    return glove(WORDS, QUERIES)


@pytest.fixture(scope="module")
def filled(words: Glove, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """All words, indexed."""
    with house(tmp_path_factory.mktemp("glove")) as here:
        spec = {"dimension": 50, "hybrid": False, "payload_indexes": {"n": "integer"}}
        here.call("PUT", "words", spec)
        seconds = here.write("words", words.batches(), straight=True)
        built_s = here.wait_for_index("words")
        show(stored=WORDS, points_per_s=round(WORDS / seconds), index_s=round(built_s, 1))
        yield here


def test_glove_through_the_gateway(words: Glove, filled: House, tmp_path: Path) -> None:
    ask = {"queries": 300, "k": 10, "sweep": {"ef": [256, 320, 384, 512]}, "target_recall": TARGET}
    measured = filled.call("POST", "words/benchmark", {**ask, "apply": True})
    show(settings=measured["settings"], chosen=measured["best"], rss=measured["rss_bytes"])
    bodies = words.bodies()
    recall = words.recall(filled.ids("words", bodies))
    load = Load(filled.search_url("words"), bodies, filled.headers, connections=16, seconds=6.0)
    lateness = _HealthWatch(filled)
    with lateness:
        outcome = offered(load, tmp_path)
    show(recall=recall, searches=str(outcome), healthz_p99_ms=lateness.p99_ms())
    assert outcome.failures == 0
    assert recall >= TARGET
    assert outcome.rate >= 1000
    assert outcome.p99_ms <= 40
    assert lateness.p99_ms() <= 20


def test_a_filter_of_one_in_a_hundred_keeps_recall(words: Glove, filled: House) -> None:
    some = words.queries[:200]
    matching = np.flatnonzero(np.arange(WORDS) % 100 == 7)
    part = words.base[matching]
    unit = part / np.linalg.norm(part, axis=1, keepdims=True)
    truth = [{int(matching[place]) for place in np.argpartition(-(unit @ row), 10)[:10]} for row in some]
    found = filled.ids("words", words.bodies(filter=FEW)[:200])
    recall = statistics.fmean(len(set(ids) & true) / 10 for ids, true in zip(found, truth, strict=True))
    show(filtered_recall=recall)
    assert recall >= TARGET


def test_reads_go_on_while_an_index_is_rebuilt(words: Glove, filled: House, tmp_path: Path) -> None:
    """The last of this module that uses `filled`: it writes."""
    filled.write("words", list(words.batches())[:15], straight=True)
    time.sleep(2.0)  # until the writing counts as over, and the rebuild has begun
    assert filled.call("GET", "words")["index"] == "building"
    load = Load(filled.search_url("words"), words.bodies(), filled.headers, connections=2, seconds=10.0)
    outcome = offered(load, tmp_path)
    show(searches_during_rebuild=str(outcome))
    assert outcome.failures == 0
    # Taking the new index up holds searches for a tenth of a second per 200,000 points, once.
    assert outcome.p99_ms <= 500


def test_what_http_adds(tmp_path: Path) -> None:
    """One connection, straight to vectord, 384 numbers, against the engine in this process."""
    rows = np.random.default_rng(1).normal(size=(12_000, 384)).astype(np.float32)
    asked = rows[10_000:11_000]
    bodies = [orjson.dumps({"vector": encoded(row), "k": 10}).decode() for row in asked]
    with house(tmp_path) as here:
        here.call("PUT", "c", {"dimension": 384, "hybrid": False})
        here.write("c", [points(first, rows[first : first + 500]) for first in range(0, 10_000, 500)])
        here.wait_for_index("c")
        load = Load(here.search_url("c", straight=True), bodies, connections=1, seconds=5.0)
        rounds = [offered(load, tmp_path) for _ in range(3)]
        over_http = sorted(rounds, key=lambda each: each.p50_ms)[1]
    (folder,) = tmp_path.glob("data/vectors/c/shard")
    shard = EdgeStore().open(folder, ShardSpec(384, "cosine", hybrid=False))
    times_ms = []
    for _ in range(3):
        for row in asked.tolist():
            started = time.perf_counter()
            shard.search(Query(10, row, ef=256), Where())
            times_ms.append((time.perf_counter() - started) * 1000)
    shard.close()
    engine_ms = statistics.median(times_ms)
    show(http_p50_ms=over_http.p50_ms, engine_p50_ms=round(engine_ms, 3))
    assert over_http.p50_ms - engine_ms <= 0.5


class _HealthWatch:
    """Asks vectord how it is, again and again, from a thread."""

    def __init__(self, here: House) -> None:
        self._url = f"{here.vectord.url}/healthz"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._times_ms: list[float] = []

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        with httpx.Client(trust_env=False, timeout=10.0) as client:
            while not self._over.wait(0.01):
                started = time.perf_counter()
                client.get(self._url).raise_for_status()
                self._times_ms.append((time.perf_counter() - started) * 1000)

    def p99_ms(self) -> float:
        return round(statistics.quantiles(self._times_ms, n=100)[98], 2)
