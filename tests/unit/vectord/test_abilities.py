"""Batches, facets, weights, another model, recall of real searches, canaries."""

import random
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from tests.unit.vectord.conftest import letters
from vectord.backends import FakeStore, Query, Record, Scored, ShardSpec, Where
from vectord.backends.fake import FakeShard
from vectord.engine.fusion import reciprocal_rank
from vectord.engine.recall import recall_of

if TYPE_CHECKING:
    import pathlib

    from tests.unit.vectord.conftest import Embedd, Open, Vectord

pytestmark = pytest.mark.anyio

TEXTS = ["forklift driver", "nurse on nights", "welder of pipes", "warehouse picker", "cook"]
PATIENCE_S = 30.0


async def lettered(vectord: "Vectord", name: str = "c", **spec: Any) -> None:
    await vectord.call("PUT", f"/collections/{name}", {"model": "letters", **spec})
    await vectord.put(name, *({"id": number, "text": text} for number, text in enumerate(TEXTS)))


# --- batches ------------------------------------------------------------------------------------


async def test_a_batch_answers_as_its_searches_would(vectord: "Vectord") -> None:
    await lettered(vectord)
    searches: list[dict[str, Any]] = [
        *({"text": text, "k": 2} for text in TEXTS),
        {"text": "driver", "mode": "sparse"},
        {"text": "nurse", "mode": "hybrid", "weights": {"dense": 0.5}, "with": []},
    ]
    answer = await vectord.call("POST", "/collections/c/search/batch", {"searches": searches})
    assert len(answer["results"]) == len(searches)
    for search, result in zip(searches, answer["results"], strict=True):
        alone = await vectord.call("POST", "/collections/c/search", search)
        assert result["hits"] == alone["hits"]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"vector": [1.0]}, "searches.1.vector"),
        ({"text": "x", "k": 10_000_000}, "searches.1.k"),
        ({"text": "x", "surprise": 1}, "searches.1.surprise"),
        ({"text": "x", "filter": {"must": [{"key": "a..b", "match": 1}]}}, "searches.1.filter.must.0.key"),
    ],
)
async def test_an_error_in_a_batch_names_the_search(
    vectord: "Vectord", wrong: dict[str, Any], param: str
) -> None:
    await lettered(vectord)
    body = {"searches": [{"text": "cook"}, wrong]}
    assert (await vectord.error("POST", "/collections/c/search/batch", body))["param"] == param


async def test_a_batch_is_bounded(vectord: "Vectord") -> None:
    await lettered(vectord)
    body = {"searches": [{"text": "cook"}] * 65}
    assert (await vectord.error("POST", "/collections/c/search/batch", body))["param"] == "searches"


# --- facets -------------------------------------------------------------------------------------

PAYLOADS: list[dict[str, Any]] = [
    {"city": "Bonn", "skills": ["a", "b", "b"], "n": 1},
    {"city": "Bonn", "skills": ["b"], "n": 1.0},
    {"city": "Ulm", "skills": [], "n": True},
    {"city": None, "skills": "b", "n": "1"},
    {"shifts": [{"city": "Ulm"}, {"city": "Bonn"}, {"city": "Ulm"}]},
]


async def test_facets_count_values_as_filters_match_them(vectord: "Vectord") -> None:
    await vectord.call("PUT", "/collections/c", {"dimension": 2})
    await vectord.put(
        "c", *({"id": n, "vector": [1, 1], "payload": payload} for n, payload in enumerate(PAYLOADS))
    )

    async def facets(key: str, **more: Any) -> list[tuple[Any, int]]:
        answer = await vectord.call("POST", "/collections/c/points/facets", {"key": key, **more})
        return [(item["value"], item["count"]) for item in answer["facets"]]

    assert await facets("city") == [("Bonn", 2), ("Ulm", 1)]
    assert await facets("skills") == [("b", 3), ("a", 1)]
    assert await facets("shifts[].city") == [("Bonn", 1), ("Ulm", 1)]
    counted = {(type(value), value): count for value, count in await facets("n")}
    assert counted == {(int, 1): 2, (bool, True): 1, (str, "1"): 1}
    assert await facets("city", limit=1) == [("Bonn", 2)]
    ulm = {"must": [{"key": "city", "match": "Ulm"}]}
    assert await facets("skills", filter=ulm) == []
    for key in ("city", "skills", "n", "shifts[].city"):
        for value, count in await facets(key):
            body = {"filter": {"must": [{"key": key, "match": value}]}}
            assert (await vectord.call("POST", "/collections/c/points/count", body))["count"] == count


async def test_facets_are_bounded_and_their_key_is_a_path(open_vectord: "Open") -> None:
    async with open_vectord(facet_points_max=2) as vectord:
        await vectord.call("PUT", "/collections/c", {"dimension": 2})
        await vectord.put("c", *({"id": n, "vector": [1, 1], "payload": {"n": n}} for n in range(3)))
        error = await vectord.error("POST", "/collections/c/points/facets", {"key": "n"})
        assert error["code"] == "too_many_points"
        few = {"key": "n", "filter": {"must": [{"key": "n", "range": {"lt": 2}}]}}
        assert (await vectord.call("POST", "/collections/c/points/facets", few))["points"] == 2
        assert (await vectord.error("POST", "/collections/c/points/facets", {"key": "a..b"}))[
            "param"
        ] == "key"


# --- weights ------------------------------------------------------------------------------------


def test_a_weight_moves_the_order_and_0_leaves_out() -> None:
    rankings = ["ab", "ba"]

    def order(*weights: float) -> str:
        return "".join(item for item, _ in reciprocal_rank(rankings, str, weights=weights))

    assert order(2, 1) == "ab"
    assert order(1, 2) == "ba"
    assert reciprocal_rank(rankings, str, weights=(0, 1)) == [("b", 1 / 61), ("a", 1 / 62)]
    assert reciprocal_rank(rankings, str, weights=(1, 1)) == reciprocal_rank(rankings, str)


async def test_weights_decide_whether_words_or_vectors_lead(vectord: "Vectord") -> None:
    await lettered(vectord)
    body = {"text": "cook", "vector": letters(TEXTS[1]), "mode": "hybrid", "k": 1}
    assert await vectord.ids("c", {**body, "weights": {"dense": 1, "sparse": 0}}) == [1]
    assert await vectord.ids("c", {**body, "weights": {"dense": 0, "sparse": 1}}) == [4]
    retrieve = {"query": "cook", "collections": ["c"], "mode": "hybrid", "weights": {"dense": 0.1}}
    assert (await vectord.call("POST", "/retrieve", retrieve))["hits"][0]["id"] == 4


@pytest.mark.parametrize("weights", [{"dense": 0, "sparse": 0}, {"dense": -1}, {"words": 1}, {"dense": 1e9}])
async def test_weights_that_weigh_nothing_are_refused(vectord: "Vectord", weights: dict[str, float]) -> None:
    await lettered(vectord)
    body = {"text": "cook", "mode": "hybrid", "weights": weights}
    assert (await vectord.error("POST", "/collections/c/search", body))["param"].startswith("weights")
    dense = {"text": "cook", "weights": {"dense": 1}}
    assert "hybrid" in (await vectord.error("POST", "/collections/c/search", dense))["message"]


# --- another model ------------------------------------------------------------------------------


async def settled(vectord: "Vectord", name: str = "c") -> dict[str, Any]:
    with anyio.fail_after(PATIENCE_S):
        while True:
            state: dict[str, Any] = await vectord.call("GET", f"/collections/{name}/reembed")
            if state["state"] != "running":
                return state
            await anyio.sleep(0.01)


async def test_a_collection_is_embedded_again_when_its_model_has_changed(
    vectord: "Vectord", embedd: "Embedd"
) -> None:
    await lettered(vectord)
    await vectord.error("GET", "/collections/c/reembed", status=404)
    error = await vectord.error("POST", "/collections/c/reembed", {}, status=409)
    assert error["code"] == "same_model"
    embedd.digest = "sha256:two"
    error = await vectord.error("POST", "/collections/c/search", {"text": "cook"}, status=409)
    assert error["code"] == "model_digest_mismatch"
    assert (await vectord.call("POST", "/collections/c/reembed", {}, status=202))["state"] == "running"
    assert await settled(vectord) == {"state": "done", "model": "letters", "done": 5, "total": 5}
    assert await vectord.ids("c", {"text": "cook", "k": 1}) == [4]
    described = await vectord.call("GET", "/collections/c")
    assert (described["model_digest"], described["count"]) == ("sha256:two", 5)


async def test_what_cannot_be_embedded_again_stays_as_it_was(vectord: "Vectord", embedd: "Embedd") -> None:
    await lettered(vectord)
    await vectord.put("c", {"id": "no text", "vector": letters("zzz")})
    embedd.digest = "sha256:two"
    await vectord.call("POST", "/collections/c/reembed", {}, status=202)
    state = await settled(vectord)
    assert state["state"] == "failed"
    assert "without a text" in state["error"]
    assert (await vectord.call("GET", "/collections/c"))["model_digest"] == "sha256:one"
    assert await vectord.ids("c", {"vector": letters("cook"), "k": 1}) == [4]
    error = await vectord.error("POST", "/collections/c/reembed", {"model": "unknown"})
    assert error["param"] == "model"
    await vectord.call("PUT", "/collections/bare", {"dimension": 2})
    assert (await vectord.error("POST", "/collections/bare/reembed", {}))["code"] == "no_model"


async def test_a_new_collection_knows_nothing_of_the_one_before(vectord: "Vectord", embedd: "Embedd") -> None:
    await lettered(vectord)
    embedd.digest = "sha256:two"
    await vectord.call("POST", "/collections/c/reembed", {}, status=202)
    await settled(vectord)
    await vectord.call("DELETE", "/collections/c")
    await lettered(vectord)
    error = await vectord.error("GET", "/collections/c/reembed", status=404)
    assert error["code"] == "reembed_not_found"


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - a thread does it
        await anyio.sleep(0.005)


class Busy(FakeStore):
    """The first shard that is opened answers no search before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.may = threading.Event()
        self._opened = 0

    def open(self, folder: "pathlib.Path", spec: ShardSpec) -> FakeShard:
        shard = super().open(folder, spec)
        self._opened += 1
        if self._opened == 1:
            search = shard.search

            def wait(query: Query, where: Where) -> list[Scored]:
                self.asked.set()
                assert self.may.wait(PATIENCE_S)
                return search(query, where)

            shard.search = wait  # type: ignore[method-assign] # the point of the test
        return shard


async def test_a_collection_is_not_deleted_before_its_old_shard_is_gone(
    open_vectord: "Open", embedd: "Embedd"
) -> None:
    """One made anew under the name would have its shard taken for a left-over of the move."""
    busy = Busy()
    async with open_vectord(busy, recall_share=0, canary_probes_max=0) as vectord:
        await lettered(vectord)
        async with anyio.create_task_group() as group:
            group.start_soon(vectord.ids, "c", {"vector": letters("cook")})
            with anyio.fail_after(PATIENCE_S):
                await until(busy.asked.is_set)
                embedd.digest = "sha256:two"
                await vectord.call("POST", "/collections/c/reembed", {}, status=202)
                while (await vectord.call("GET", "/collections/c"))["model_digest"] != "sha256:two":  # noqa: ASYNC110 - over HTTP
                    await anyio.sleep(0.01)
            error = await vectord.error("DELETE", "/collections/c", status=409)
            assert error["code"] == "collection_moving"
            busy.may.set()
        assert (await settled(vectord))["state"] == "done"
        await vectord.call("DELETE", "/collections/c")
        await lettered(vectord)
        assert (await vectord.call("GET", "/collections/c"))["count"] == len(TEXTS)


# --- recall -------------------------------------------------------------------------------------


class Forgetful(FakeStore):
    """Finds every other one of the nearest, unless asked to be exact."""

    def open(self, folder: "pathlib.Path", spec: ShardSpec) -> FakeShard:
        shard = super().open(folder, spec)
        search = shard.search

        def forget(query: Query, where: Where) -> list[Scored]:
            hits = search(query, where)
            return hits if query.exact else hits[::2]

        shard.search = forget  # type: ignore[method-assign] # the point of the test
        return shard


async def labelled(vectord: "Vectord", line: str) -> float | None:
    text = (await vectord.http.get("/metrics")).text
    return next((float(found.split()[-1]) for found in text.splitlines() if found.startswith(line)), None)


@pytest.mark.parametrize(("made", "recall"), [(FakeStore, 1.0), (Forgetful, 0.5)])
async def test_real_searches_are_measured_against_the_truth(
    open_vectord: "Open", made: Callable[[], FakeStore], recall: float
) -> None:
    line = 'vectord_recall_at_10{collection="c"}'
    async with open_vectord(made(), recall_share=1.0, recall_interval_s=0.0) as vectord:
        await vectord.call("PUT", "/collections/c", {"dimension": 2})
        await vectord.put("c", *({"id": n, "vector": [1, n]} for n in range(50)))
        assert await labelled(vectord, line) is None
        await vectord.ids("c", {"vector": [1.0, 3.5], "k": 3})
        with anyio.fail_after(PATIENCE_S):
            while (found := await labelled(vectord, line)) is None:  # noqa: ASYNC110 - it is known by its metric
                await anyio.sleep(0.01)
        assert found == recall
        await vectord.call("DELETE", "/collections/c")
        assert await labelled(vectord, line) is None


async def test_no_search_is_measured_where_none_is_to_be(open_vectord: "Open") -> None:
    async with open_vectord(FakeStore(), recall_share=0.0) as vectord:
        await vectord.call("PUT", "/collections/c", {"dimension": 2})
        await vectord.put("c", {"id": 1, "vector": [1, 1]})
        for _ in range(20):
            await vectord.ids("c", {"vector": [1.0, 1.0]})
        assert await labelled(vectord, "vectord_recall_samples_total{") is None


def test_recall_takes_a_tie_for_a_find() -> None:
    def hits(*scores: float) -> list[Scored]:
        return [Scored(Record(number, []), score) for number, score in enumerate(scores)]

    assert recall_of(hits(0.9, 0.8), hits(0.9, 0.8)) == 1
    assert recall_of(hits(0.9, 0.5), hits(0.9, 0.8)) == 0.5
    assert recall_of(hits(0.9, 0.8, 0.8), hits(0.9, 0.8)) == 1
    assert recall_of([], hits(0.9)) == 0
    assert recall_of(hits(-2.0), hits(-2.0000001)) == 1


# --- canaries -----------------------------------------------------------------------------------


class Leaky(FakeStore):
    """Forgets the role in the filter: only the check after it is left."""

    def open(self, folder: "pathlib.Path", spec: ShardSpec) -> FakeShard:
        shard = super().open(folder, spec)
        search = shard.search

        def leak(query: Query, where: Where) -> list[Scored]:
            del where
            return search(query, Where())

        shard.search = leak  # type: ignore[method-assign] # the point of the test
        return shard


class Miscounting(FakeStore):
    """Counts whatever the role is: a leak that no check on hits can see."""

    def open(self, folder: "pathlib.Path", spec: ShardSpec) -> FakeShard:
        shard = super().open(folder, spec)
        count = shard.count

        def leak(where: Where) -> int:
            return count(Where(where.filter, where.ids))

        shard.count = leak  # type: ignore[method-assign] # the point of the test
        return shard


ROLES = ("nurse", "welder", "cook")


async def probed(vectord: "Vectord", rounds: int = 2) -> Sequence[float]:
    """Probes, leaks and points missing, once some canaries have been asked for."""
    await vectord.call("PUT", "/collections/g", {"dimension": 2, "gated": True})
    chance = random.Random(1)
    await vectord.put(
        "g",
        *(
            {"id": n, "vector": [chance.random(), 1], "role": ROLES[n % 3], "text": f"shared words {n}"}
            for n in range(30)
        ),
    )
    with anyio.fail_after(PATIENCE_S):
        while await vectord.metric("vectord_canary_probes_total") < 3 * rounds:  # noqa: ASYNC110 - the same
            await anyio.sleep(0.01)
    names = ("vectord_canary_leaks_total", "vectord_canaries_missing_total", "vectord_gate_leaks_total")
    return [await vectord.metric(name) for name in names]


async def ready(vectord: "Vectord") -> tuple[int, dict[str, Any]]:
    answer = await vectord.http.get("/readyz")
    return answer.status_code, answer.json()["dependencies"]


async def test_canaries_find_no_leak_where_there_is_none(open_vectord: "Open") -> None:
    async with open_vectord(canary_interval_s=0.02) as vectord:
        assert await probed(vectord) == [0, 0, 0]
        status, dependencies = await ready(vectord)
        assert status == 200
        assert dependencies["gate"]["ok"]
        assert dependencies["index"]["ok"]


async def test_canaries_make_a_leak_of_the_index_known(open_vectord: "Open") -> None:
    async with open_vectord(Leaky(), canary_interval_s=0.02) as vectord:
        leaks, missing, stopped = await probed(vectord)
        assert (leaks, missing) == (0, 0)
        assert stopped > 0
        status, dependencies = await ready(vectord)
        assert status == 200  # the gate holds
        assert not dependencies["index"]["ok"]
        assert "were stopped" in dependencies["index"]["reason"]


async def test_canaries_make_a_leak_to_callers_known_and_close_the_house(open_vectord: "Open") -> None:
    async with open_vectord(Miscounting(), canary_interval_s=0.02) as vectord:
        leaks, _, _ = await probed(vectord)
        assert leaks > 0
        status, dependencies = await ready(vectord)
        assert status == 503
        assert not dependencies["gate"]["ok"]
