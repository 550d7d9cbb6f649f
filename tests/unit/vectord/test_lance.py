"""What Lance alone has: an index of parts, commits that collide, several readers, small files, syncs."""

import math
import os
import pathlib
import random
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.vectors import Condition, Filter
from vectord.backends import Query, Record, RoleScope, ShardSpec, StoreError, Where, wording
from vectord.backends.bm25 import model
from vectord.backends.engines import LanceOptions
from vectord.backends.lance import LanceShard, LanceStore, sub_vectors
from vectord.backends.store import ShardTaken
from vectord.backends.terms import BITS, prefixes

SPEC = ShardSpec(dimension=16, distance="cosine", hybrid=True, engine="lance", name="notes")


def made(folder: pathlib.Path, spec: ShardSpec = SPEC, **options: Any) -> LanceShard:
    store = LanceStore(LanceOptions(**options))
    store.create(folder, spec)
    return store.open(folder, spec)


def clustered(count: int, seed: int = 1) -> list[list[float]]:
    draw = random.Random(seed)
    centres = [[draw.gauss(0, 1) for _ in range(16)] for _ in range(20)]
    return [[draw.gauss(mean, 0.3) for mean in draw.choice(centres)] for _ in range(count)]


def ids(shard: LanceShard, where: Where) -> set[str | int]:
    return {record.id for record in shard.scroll(where, limit=1000, cursor=None, with_vector=False).records}


@pytest.mark.parametrize("index", ["IVF_PQ", "IVF_HNSW_SQ"])
@pytest.mark.parametrize("distance", ["cosine", "dot", "euclid"])
def test_an_index_finds_the_nearest_also_among_few(tmp_path: pathlib.Path, index: str, distance: Any) -> None:
    spec = ShardSpec(dimension=16, distance=distance, hybrid=False, engine="lance")
    shard = made(tmp_path / "shard", spec, index=index, flat_rows_max=400, nprobes=4, refine=10)
    vectors = clustered(1200)
    shard.upsert([Record(n, vector, payload={"n": n}) for n, vector in enumerate(vectors)])
    assert shard.info().indexed == 0
    shard.optimize()
    assert shard.info().indexed == 1200
    most = Where(filter=Filter(must=[Condition.model_validate({"key": "n", "range": {"lt": 1000}})]))
    few = Where(filter=Filter(must=[Condition.model_validate({"key": "n", "range": {"lt": 12}})]))
    found = 0
    for vector in clustered(20, seed=2):
        for where in (Where(), most):
            exact = shard.search(Query(10, vector, exact=True), where)
            hits = shard.search(Query(10, vector), where)
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            found += len({hit.record.id for hit in hits} & {hit.record.id for hit in exact})
        assert {hit.record.id for hit in shard.search(Query(12, vector), few)} == set(range(12))
    assert found >= 0.95 * 400
    far = [10 * number for number in vectors[0]]
    shard.upsert([Record(5000, far)])  # not in the index yet
    assert 5000 in {hit.record.id for hit in shard.search(Query(2, far), Where())}


def test_nothing_that_is_said_gets_into_a_statement(tmp_path: pathlib.Path) -> None:
    shard = made(tmp_path / "shard")
    evil = "x') OR (true) --"
    vector = [1.0] * 16
    shard.upsert(
        [
            Record(1, vector, role="a", role_key="a", payload={"city": "Ulm"}),
            Record(evil, vector, role=evil, role_key=evil, payload={evil: evil, "city": evil}),
        ]
    )
    for key in (evil, "a' OR '1'='1", "\\' OR true --", "'", "a\x00", "%"):
        scope = Where(scope=RoleScope(frozenset({key}), without_role=False))
        assert ids(shard, scope) == ({evil} if key == evil else set())
        assert shard.count(Where(ids=[key])) == (key == evil)
        matching = Filter(must=[Condition(key="city", match=key)])
        assert ids(shard, Where(filter=matching)) == ({evil} if key == evil else set())
        assert shard.search(Query(5, text=key), scope) == []
    shard.delete([evil])
    assert ids(shard, Where()) == {1}


def test_a_second_vectord_reads_and_writes_the_same_dataset(tmp_path: pathlib.Path) -> None:
    url = str(tmp_path / "shared")
    first_store, second_store = (LanceStore(LanceOptions(url=url)) for _ in range(2))
    for name, store in (("a", first_store), ("b", second_store)):
        (tmp_path / name).mkdir()
        store.create(tmp_path / name / "shard", SPEC)
    first = first_store.open(tmp_path / "a" / "shard", SPEC)
    second = second_store.open(tmp_path / "b" / "shard", SPEC)
    first.upsert([Record("x", [1.0] * 16, text="kept")])
    assert [record.text for record in second.get(["x"], with_vector=False)] == ["kept"]
    second.delete(["x"])
    assert first.count(Where()) == 0
    other = ShardSpec(dimension=3, distance="cosine", hybrid=True, engine="lance", name="notes")
    (tmp_path / "c").mkdir()
    with pytest.raises(ShardTaken, match="exists already"):
        first_store.create(tmp_path / "c" / "shard", other)
    with pytest.raises(ShardTaken):  # a move copies into nothing but its own
        first_store.create(tmp_path / "c" / f"shard-lance-{'0' * 32}", SPEC)
    second_store.drop(tmp_path / "b" / "shard")
    assert first.count(Where()) == 0
    first_store.drop(tmp_path / "a" / "shard")
    with pytest.raises(StoreError):
        first_store.open(tmp_path / "a" / "shard", SPEC)


def test_writers_that_collide_try_again(tmp_path: pathlib.Path) -> None:
    url = str(tmp_path / "shared")
    shards = []
    for name in "abc":
        (tmp_path / name).mkdir()
        store = LanceStore(LanceOptions(url=url))
        store.create(tmp_path / name / "shard", SPEC)
        shards.append(store.open(tmp_path / name / "shard", SPEC))
    failures: list[BaseException] = []

    def write(shard: LanceShard, mine: int) -> None:
        try:
            for n in range(6):
                shard.upsert([Record(n, [1.0] * 16), Record(100 * mine + n, [1.0] * 16)])
                shard.delete([100 * mine + n - 1])
        except StoreError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(shard, n)) for n, shard in enumerate(shards, start=1)]
    for thread in threads:
        thread.start()
    shards[0].optimize()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(ids(shard, Where()) == {0, 1, 2, 3, 4, 5, 105, 205, 305} for shard in shards)
    assert shards[0].count(Where()) == 9


def test_small_files_are_merged_and_old_versions_go(tmp_path: pathlib.Path) -> None:
    shard = made(tmp_path / "shard", versions_keep_s=0.0)
    for n in range(30):
        shard.upsert([Record(n % 20, [1.0] * 16, text=f"text {n}")])

    def there() -> int:
        return sum(1 for path in (tmp_path / "shard").rglob("*.lance") if path.is_file())

    before = there()
    shard.optimize()
    assert before >= 30
    assert there() < 15
    assert ids(shard, Where()) == set(range(20))
    assert shard.get([3], with_vector=False)[0].text == "text 23"


def test_a_flush_syncs_what_was_written_and_nothing_twice(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = made(tmp_path / "shard")
    shard.upsert([Record(1, [1.0] * 16)])
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(str(pathlib.Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", fsync)
    shard.flush()
    there = {str(path) for path in (tmp_path / "shard" / "data.lance").rglob("*")}
    assert there <= set(synced)
    synced.clear()
    shard.flush()
    assert not any(pathlib.Path(path).is_file() for path in synced)
    shard.upsert([Record(2, [1.0] * 16)])
    shard.flush()
    new = {str(path) for path in (tmp_path / "shard" / "data.lance").rglob("*") if path.is_file()} - there
    assert new == {path for path in synced if pathlib.Path(path).is_file()}
    assert any("_versions" in path for path in new)


def test_the_index_of_words_agrees_with_weighing_every_text(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = made(tmp_path / "shard")
    draw = random.Random(3)
    words = ["forklift", "welding", "night", "shift", "kitchen", "driver", "crane"]
    shard.upsert(
        [
            Record(
                n, [1.0] * 16, text=" ".join(draw.choices(words, k=draw.randint(1, 12))), role_key="ab"[n % 2]
            )
            for n in range(300)
        ]
    )
    scope = Where(scope=RoleScope(frozenset({"a"}), without_role=False))

    def found() -> Sequence[tuple[str | int, float]]:
        hits = shard.search(Query(300, text="forklift crane"), scope)
        return sorted((hit.record.id, round(hit.score, 6)) for hit in hits)

    weighed = found()
    assert len(weighed) > 50
    monkeypatch.setattr(wording, "WEIGHED_MAX", 0)
    assert found() == weighed
    shard.optimize()
    assert found() == weighed


# --- laws -------------------------------------------------------------------------------------


@given(st.integers(0, 2**BITS - 1), st.integers(0, 2**BITS - 1), st.integers(0, 2**BITS - 1))
def test_prefixes_cover_a_range_and_nothing_else(low: int, high: int, key: int) -> None:
    parts = list(prefixes(low, high))
    assert len(parts) <= 30 * 16
    for probe in (key, low, high, low - 1, high + 1):
        covered = sum(probe >= 0 and probe >> shift == prefix for shift, prefix in parts)
        assert covered == (low <= probe <= high)


@given(st.integers(1, 2000))
def test_codes_share_a_vector_evenly(dimension: int) -> None:
    count = sub_vectors(dimension)
    assert dimension % count == 0
    assert 1 <= count <= max(1, dimension // 4)


@given(st.dictionaries(st.sampled_from(["crane", "fork", "weld", "night"]), st.integers(1, 60), min_size=1))
def test_weights_tell_how_often_words_occur(times: dict[str, int]) -> None:
    text = " ".join(word for word, count in times.items() for _ in range(count))
    found = wording.counts(model().embed_document(text))
    assert sorted(found.values()) == sorted(times.values())
    assert math.isclose(wording.idf(3, 1), math.log(1 + 2.5 / 1.5))
