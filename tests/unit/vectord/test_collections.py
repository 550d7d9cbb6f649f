"""Collections through the door: made, found again, refused, searched, deleted."""

import json
import pathlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from vectord.backends import EdgeStore

if TYPE_CHECKING:
    from tests.unit.vectord.conftest import Embedd, Open, Vectord

pytestmark = pytest.mark.anyio

PLAIN = {"dimension": 3, "distance": "cosine"}
X, Y = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]


async def test_a_collection_is_made_once(vectord: "Vectord") -> None:
    made = await vectord.call("PUT", "/collections/notes", {"model": "letters"})
    assert made["dimension"] == 26
    assert made["model_digest"] == "sha256:one"
    assert made["count"] == 0
    assert (made["engine"], made["gated"], made["hybrid"], made["index"]) == ("edge", False, True, "ready")
    again = await vectord.call("PUT", "/collections/notes", {"model": "letters", "dimension": 26})
    assert again["name"] == "notes"
    error = await vectord.error("PUT", "/collections/notes", {"dimension": 26}, status=409)
    assert error["code"] == "collection_exists"
    listed = await vectord.call("GET", "/collections")
    assert [item["name"] for item in listed["collections"]] == ["notes"]
    gone = await vectord.call("DELETE", "/collections/notes")
    assert gone["name"] == "notes"
    error = await vectord.error("GET", "/collections/notes", status=404)
    assert error["code"] == "collection_not_found"
    await vectord.error("DELETE", "/collections/notes", status=404)
    await vectord.call("PUT", "/collections/notes", PLAIN)


@pytest.mark.parametrize("name", ["Notes", "-x", "a" * 65, "..", "a.b", "%2e%2e", "a%2Fb", ".making-a", "é"])
async def test_a_name_is_checked_before_any_path_is_made(vectord: "Vectord", name: str) -> None:
    answer = await vectord.http.put(f"/v1/collections/{name}", json=PLAIN)
    assert answer.status_code in (400, 404, 405)
    assert "error" in answer.json()
    assert (await vectord.call("GET", "/collections"))["collections"] == []


@pytest.mark.parametrize(
    ("spec", "param"),
    [
        ({}, None),
        ({"dimension": 0}, "dimension"),
        ({"dimension": 9000}, "dimension"),
        ({"dimension": True}, "dimension"),
        ({"dimension": 3, "engine": "faiss"}, "engine"),
        ({"dimension": 3, "distance": "manhattan"}, "distance"),
        ({"dimension": 3, "payload_indexes": {"a..b": "keyword"}}, "payload_indexes"),
        ({"dimension": 3, "payload_indexes": {"a": "geo"}}, "payload_indexes.a"),
        ({"dimension": 3, "colour": 1}, "colour"),
        ({"model": "letters", "dimension": 3}, "dimension"),
        ({"model": "nobody"}, "model"),
    ],
)
async def test_a_specification_is_checked(
    vectord: "Vectord", spec: dict[str, Any], param: str | None
) -> None:
    error = await vectord.error("PUT", "/collections/notes", spec)
    assert error["param"] == param
    assert (await vectord.call("GET", "/collections"))["collections"] == []


@pytest.mark.parametrize(
    ("point", "param"),
    [
        ({"id": 1, "vector": [1.0, 2.0]}, "points.1.vector"),
        ({"id": 1, "vector": [0.0, 0.0, 0.0]}, "points.1.vector"),
        ({"id": 1, "vector": [1e39, 0.0, 0.0]}, "points.1.vector"),
        ({"id": 1, "vector": [1, "2", 3]}, "points.1.vector.1"),
        ({"id": 1, "text": "no model"}, "points.1.vector"),
        ({"id": 0, "vector": X}, "points.1.id"),
        ({"id": 1}, "points.1"),
        ({"id": 1, "vector": X, "payload": {"n": 2**53}}, "points.1.payload"),
        ({"id": 1, "vector": X, "payload": {"t": "x" * 70_000}}, "points.1.payload"),
        ({"id": 1, "vector": X, "text": "x" * 70_000}, "points.1.text"),
        ({"id": 1, "vector": X, "role": " - "}, "points.1.role"),
        ({"id": 1, "vector": X, "colour": 1}, "points.1.colour"),
    ],
)
async def test_a_bad_point_is_named_and_nothing_is_written(
    vectord: "Vectord", point: dict[str, Any], param: str
) -> None:
    await vectord.call("PUT", "/collections/c", PLAIN)
    error = await vectord.error("PUT", "/collections/c/points", {"points": [{"id": 0, "vector": X}, point]})
    assert error["param"] == param
    assert await vectord.call("POST", "/collections/c/points/count", {}) == {"count": 0}


async def test_nan_and_deep_payloads_are_refused(vectord: "Vectord") -> None:
    await vectord.call("PUT", "/collections/c", PLAIN)
    deep = "[" * 40 + "]" * 40
    for body in (
        '{"points":[{"id":0,"vector":[NaN,0,1]}]}',
        '{"points":[{"id":0,"vector":[1,0,1],"payload":{"a":%s}}]}' % deep,  # noqa: UP031 - braces of JSON
    ):
        answer = await vectord.http.put("/v1/collections/c/points", content=body)
        assert answer.status_code == 400, body


async def test_limits_are_told_with_their_value(open_vectord: "Open") -> None:
    async with open_vectord(points_max=2, k_max=5, retrieve_k_max=3, collections_max=1) as vectord:
        await vectord.call("PUT", "/collections/c", PLAIN)
        points = [{"id": n, "vector": X} for n in range(3)]
        error = await vectord.error("PUT", "/collections/c/points", {"points": points})
        assert error["param"] == "points"
        assert "at most 2" in error["message"]
        error = await vectord.error("POST", "/collections/c/search", {"vector": X, "k": 6})
        assert error["param"] == "k"
        error = await vectord.error("POST", "/collections/c/points/get", {"ids": [1, 2, 3]})
        assert error["param"] == "ids"
        error = await vectord.error("POST", "/collections/c/points/scroll", {"limit": 3})
        assert error["param"] == "limit"
        error = await vectord.error("POST", "/retrieve", {"query": "x", "collections": ["c"], "k": 4})
        assert error["param"] == "k"
        error = await vectord.error("PUT", "/collections/d", PLAIN, status=409)
        assert error["code"] == "collections_max"


async def test_points_are_read_paged_counted_and_deleted(vectord: "Vectord") -> None:
    await vectord.call("PUT", "/collections/c", PLAIN | {"payload_indexes": {"city": "keyword"}})
    points = [{"id": n, "vector": X, "payload": {"city": "Ulm" if n % 2 else "Bonn"}} for n in range(10)]
    assert await vectord.put("c", *points, {"id": "7", "vector": Y, "text": "seven"}) == {
        "upserted": 11,
        "durability": "wal",
    }
    got = await vectord.call("POST", "/collections/c/points/get", {"ids": ["7", 3, 99], "with": ["vector"]})
    assert got == {"points": [{"id": "7", "vector": Y}, {"id": 3, "vector": X}]}
    ulm = {"must": [{"key": "city", "match": "Ulm"}]}
    assert await vectord.call("POST", "/collections/c/points/count", {"filter": ulm}) == {"count": 5}
    page = await vectord.call("POST", "/collections/c/points/scroll", {"filter": ulm, "limit": 3})
    rest = {"filter": ulm, "limit": 3, "cursor": page["cursor"]}
    page2 = await vectord.call("POST", "/collections/c/points/scroll", rest)
    assert [point["id"] for point in page["points"] + page2["points"]] == [1, 3, 5, 7, 9]
    assert "cursor" not in page2
    filtered = await vectord.call("POST", "/collections/c/points/get", {"filter": ulm})
    assert len(filtered["points"]) == 5
    assert await vectord.call("POST", "/collections/c/points/delete", {"ids": [1, 99]}) == {"deleted": 1}
    assert await vectord.call("POST", "/collections/c/points/delete", {"filter": ulm}) == {"deleted": 4}
    assert await vectord.call("POST", "/collections/c/points/count", {}) == {"count": 6}
    error = await vectord.error("POST", "/collections/c/points/delete", {})
    assert error["param"] == "ids"
    error = await vectord.error("POST", "/collections/c/points/scroll", {"cursor": "?"})
    assert error["param"] == "cursor"


@pytest.mark.parametrize(
    ("clause", "param"),
    [
        ({"key": "a..b", "match": 1}, "filter.must.0.key"),
        ({"key": 'a"b', "match": 1}, "filter.must.0.key"),
        ({"key": "a", "range": {"gt": "soon"}}, "filter.must.0.range.gt"),
        ({"key": "a", "range": {"gt": 1, "lt": "2026-01-01"}}, "filter.must.0.range"),
        ({"key": "a", "match": 1, "exists": True}, "filter.must.0"),
        ({"key": "a", "like": "x"}, "filter.must.0.like"),
        ({"should": [{"key": "a", "any": []}]}, "filter.must.0.should.0.any"),
    ],
)
async def test_a_bad_filter_is_named(vectord: "Vectord", clause: dict[str, Any], param: str) -> None:
    await vectord.call("PUT", "/collections/c", PLAIN)
    for path in ("points/count", "points/scroll", "points/get", "points/delete"):
        error = await vectord.error("POST", f"/collections/c/{path}", {"filter": {"must": [clause]}})
        assert error["param"] == param
    error = await vectord.error("POST", "/collections/c/search", {"vector": X, "filter": {"must": [clause]}})
    assert error["param"] == param


async def test_search_by_vector_text_and_words(vectord: "Vectord", embedd: "Embedd") -> None:
    await vectord.call("PUT", "/collections/c", {"model": "letters"})
    await vectord.put(
        "c",
        {"id": "cab", "text": "cab", "payload": {"n": 1}},
        {"id": "dog", "text": "the dog barked"},
        {"id": "own", "vector": [1.0] + [0.0] * 25, "text": "unrelated words"},
    )
    answer = await vectord.call("POST", "/collections/c/search", {"text": "abc", "k": 2})
    assert [hit["id"] for hit in answer["hits"]] == ["cab", "own"]
    assert answer["hits"][0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert answer["hits"][0]["payload"] == {"n": 1}
    assert answer["exact"] is False
    assert await vectord.ids("c", {"text": "abc", "score_min": 0.9}) == ["cab"]
    assert await vectord.ids("c", {"text": "barking dogs", "mode": "sparse"}) == ["dog"]
    assert (await vectord.ids("c", {"text": "unrelated", "mode": "hybrid"}))[0] == "own"
    exact = await vectord.call("POST", "/collections/c/search", {"text": "abc", "exact": True, "with": []})
    assert exact["exact"] is True
    assert set(exact["hits"][0]) == {"id", "score"}
    assert "unrelated words" not in embedd.texts


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"vector": X, "text": "a"}, None),
        ({"vector": [1.0]}, "vector"),
        ({"text": "a"}, "vector"),
        ({"text": "a", "mode": "sparse"}, "mode"),
        ({"text": "a", "mode": "hybrid"}, "mode"),
        ({"vector": X, "mode": "fuzzy"}, "mode"),
        ({"vector": X, "k": 0}, "k"),
    ],
)
async def test_a_search_is_checked(vectord: "Vectord", body: dict[str, Any], param: str | None) -> None:
    await vectord.call("PUT", "/collections/c", PLAIN | {"hybrid": False})
    error = await vectord.error("POST", "/collections/c/search", body)
    assert error["param"] == param


async def test_texts_go_to_embedd_in_batches(open_vectord: "Open", embedd: "Embedd") -> None:
    async with open_vectord(embed_batch_max=4) as vectord:
        await vectord.call("PUT", "/collections/c", {"model": "letters"})
        before = embedd.calls
        await vectord.put("c", *({"id": n, "text": "abcdefghij"[n]} for n in range(10)))
        assert embedd.calls - before == 3
        assert await vectord.ids("c", {"text": "e", "k": 1}) == [4]


async def test_another_model_under_the_same_name_is_refused(vectord: "Vectord", embedd: "Embedd") -> None:
    await vectord.call("PUT", "/collections/c", {"model": "letters"})
    await vectord.put("c", {"id": 1, "text": "abc"})
    embedd.digest = "sha256:two"
    for method, path, body in (
        ("PUT", "/collections/c/points", {"points": [{"id": 2, "text": "x"}]}),
        ("POST", "/collections/c/search", {"text": "abc"}),
        ("POST", "/retrieve", {"query": "abc", "collections": ["c"]}),
    ):
        error = await vectord.error(method, path, body, status=409)
        assert error["code"] == "model_digest_mismatch"
        assert "make a new collection" in error["message"]
    assert await vectord.ids("c", {"text": "abc", "mode": "sparse"}) == [1]
    assert await vectord.ids("c", {"vector": [1.0] * 26}) == [1]


async def test_without_embedd_vectors_still_work(vectord: "Vectord", embedd: "Embedd") -> None:
    await vectord.call("PUT", "/collections/c", {"model": "letters"})
    embedd.up = False
    error = await vectord.error("POST", "/collections/c/search", {"text": "abc"}, status=503)
    assert "embedd" in error["message"]
    await vectord.error("PUT", "/collections/d", {"model": "letters"}, status=503)
    await vectord.put("c", {"id": 1, "vector": [1.0] * 26})
    assert await vectord.ids("c", {"vector": [1.0] * 26}) == [1]
    ready = await vectord.http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["status"] == "degraded"
    assert "embedd" in ready.json()["dependencies"]["embedd"]["reason"]
    assert (await vectord.http.get("/healthz")).status_code == 200


async def test_what_was_written_is_there_after_a_restart(open_vectord: "Open") -> None:
    async with open_vectord() as vectord:
        await vectord.call("PUT", "/collections/c", {"model": "letters", "payload_indexes": {"n": "integer"}})
        body = {"points": [{"id": "x", "text": "abc", "payload": {"n": 1}}], "durability": "fsync"}
        assert (await vectord.call("PUT", "/collections/c/points", body))["durability"] == "fsync"
    async with open_vectord() as vectord:
        found = await vectord.call("GET", "/collections/c")
        assert (found["count"], found["model"], found["payload_indexes"]) == (1, "letters", {"n": "integer"})
        assert found["bytes"] > 0
        only = {"must": [{"key": "n", "range": {"gte": 1}}]}
        assert await vectord.ids("c", {"text": "abc", "filter": only}) == ["x"]


async def test_half_made_collections_are_set_aside(open_vectord: "Open", tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "vectors"
    async with open_vectord() as vectord:
        await vectord.call("PUT", "/collections/whole", PLAIN)
        await vectord.put("whole", {"id": 1, "vector": X})
    (folder / "no-manifest" / "shard").mkdir(parents=True)
    (folder / "torn").mkdir()
    (folder / "torn" / "manifest.json").write_text('{"format": 1, "spec"')
    (folder / ".making-x-1").mkdir()
    (folder / ".deleting-y-1").mkdir()
    async with open_vectord() as vectord:
        listed = await vectord.call("GET", "/collections")
        assert [item["name"] for item in listed["collections"]] == ["whole"]
        await vectord.call("PUT", "/collections/torn", PLAIN)
    kept = sorted(path.name.rsplit("-", 1)[0] for path in (folder / ".aside").iterdir())
    assert kept == ["making-x-1", "no-manifest", "torn"]
    assert not (folder / ".deleting-y-1").exists()


async def test_a_shard_that_does_not_open_is_reported_and_left_alone(
    open_vectord: "Open", tmp_path: pathlib.Path
) -> None:
    async with open_vectord() as vectord:
        await vectord.call("PUT", "/collections/bad", PLAIN)
        await vectord.call("PUT", "/collections/good", PLAIN)
    shard = tmp_path / "vectors" / "bad" / "shard"
    shard.rename(shard.with_name("elsewhere"))
    async with open_vectord() as vectord:
        error = await vectord.error("GET", "/collections/bad", status=503)
        assert "'bad'" in error["message"]
        await vectord.error("PUT", "/collections/bad", PLAIN, status=503)
        await vectord.put("good", {"id": 1, "vector": X})
        ready = await vectord.http.get("/readyz")
        assert ready.status_code == 503
        assert "bad" in ready.json()["dependencies"]["storage"]["reason"]
    assert (shard.with_name("elsewhere")).exists()


async def test_two_daemons_do_not_share_a_folder(open_vectord: "Open") -> None:
    async with open_vectord():
        with pytest.raises(Exception, match="another vectord holds"):
            async with open_vectord(EdgeStore()):
                pass


async def test_the_index_is_rebuilt_in_the_background(open_vectord: "Open") -> None:
    async with open_vectord(optimize_after_points=100) as vectord:
        await vectord.call("PUT", "/collections/c", PLAIN)
        await vectord.put("c", *({"id": n, "vector": [1.0, n, 1.0]} for n in range(150)))
        while not await vectord.metric("vectord_optimize_seconds_count"):  # noqa: ASYNC110 - seen from outside
            await anyio.sleep(0.01)
        assert len(await vectord.ids("c", {"vector": X, "k": 200})) == 150


async def test_a_load_that_writes_over_points_does_not_hold_up_the_rebuild(open_vectord: "Open") -> None:
    """What it replaced takes memory until then. A load of new points may be 20 times as long."""
    async with open_vectord(optimize_after_points=100) as vectord:
        await vectord.call("PUT", "/collections/c", PLAIN)
        written = 0
        while not await vectord.metric("vectord_optimize_seconds_count"):
            await vectord.put("c", *({"id": n, "vector": [1.0, n, 1.0]} for n in range(10)))
            written += 10
            await anyio.sleep(0.01)
        assert written < 20 * 100


async def test_retrieve_merges_collections(vectord: "Vectord") -> None:
    for name in ("a", "b"):
        await vectord.call("PUT", f"/collections/{name}", {"model": "letters"})
    await vectord.put("a", {"id": 1, "text": "forklift"}, {"id": 2, "text": "zzz"})
    await vectord.put("b", {"id": 1, "text": "forklifts"}, {"id": 2, "text": "qqq", "payload": {"n": 1}})
    body = {"query": "forklift", "collections": ["a", "b"], "k": 2}
    answer = await vectord.call("POST", "/retrieve", body)
    assert [(hit["collection"], hit["id"]) for hit in answer["hits"]] == [("a", 1), ("b", 1)]
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["gate"] == {"role": None, "canonical_role": None, "checked": 4, "dropped": []}
    hybrid = await vectord.call("POST", "/retrieve", body | {"mode": "hybrid", "k": 3})
    assert {(hit["collection"], hit["id"]) for hit in hybrid["hits"][:2]} == {("a", 1), ("b", 1)}
    assert json.dumps(hybrid["hits"][2]["payload"]) in ("{}", '{"n": 1}')
    error = await vectord.error("POST", "/retrieve", body | {"collections": ["a", "x"]}, status=404)
    assert error["param"] == "collections.1"
    await vectord.call("PUT", "/collections/own", PLAIN)
    error = await vectord.error("POST", "/retrieve", body | {"collections": ["own"]})
    assert error["param"] == "collections.0"
