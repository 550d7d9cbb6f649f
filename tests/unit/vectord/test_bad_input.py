"""Bad input of every kind, and a full disk: a clear error each, and nothing half-written."""

import pathlib
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from vectord.backends import EdgeStore

if TYPE_CHECKING:
    from tests.unit.vectord.conftest import Open, Vectord

pytestmark = pytest.mark.anyio

V = [1.0, 2.0, 3.0]
GOOD = {"id": 1, "vector": V}
LARGE = {"id": 2, "vector": V, "payload": {"x": "y" * 70_000}}


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"must": [{"key": "n", "match": 1}]}
    for _ in range(depth - 1):
        inner = {"must": [inner]}
    return inner


BAD: dict[str, tuple[str, str, Any, str | None]] = {
    "a vector too long": (
        "PUT",
        "c/points",
        {"points": [GOOD, {"id": 2, "vector": [*V, 1.0]}]},
        "points.1.vector",
    ),
    "a vector of strings": (
        "PUT",
        "c/points",
        {"points": [{"id": 2, "vector": ["1", "2", "3"]}]},
        "points.0.vector.0",
    ),
    "a vector of zeros": (
        "PUT",
        "c/points",
        {"points": [GOOD, {"id": 2, "vector": [0.0, 0.0, 0.0]}]},
        "points.1.vector",
    ),
    "numbers beyond float32": (
        "PUT",
        "c/points",
        {"points": [{"id": 2, "vector": [1e300, 0.0, 0.0]}]},
        "points.0.vector",
    ),
    "an id twice": ("PUT", "c/points", {"points": [GOOD, {"id": 2, "vector": V}, GOOD]}, "points.2.id"),
    "an empty id": ("PUT", "c/points", {"points": [{"id": "", "vector": V}]}, None),
    "an id below zero": ("PUT", "c/points", {"points": [{"id": -1, "vector": V}]}, None),
    "an id that is a fraction": ("PUT", "c/points", {"points": [{"id": 1.5, "vector": V}]}, None),
    "no points": ("PUT", "c/points", {"points": []}, "points"),
    "too many points": (
        "PUT",
        "c/points",
        {"points": [{"id": n, "vector": V} for n in range(1001)]},
        "points",
    ),
    "a payload too large": ("PUT", "c/points", {"points": [GOOD, LARGE]}, "points.1.payload"),
    "a text too large": (
        "PUT",
        "c/points",
        {"points": [{"id": 2, "vector": V, "text": "ü" * 40_000}]},
        "points.0.text",
    ),
    "an unknown field": ("PUT", "c/points", {"points": [{**GOOD, "score": 1}]}, "points.0.score"),
    "ten million hits": ("POST", "c/search", {"vector": V, "k": 10_000_000}, "k"),
    "no hits": ("POST", "c/search", {"vector": V, "k": 0}, "k"),
    "a filter 100 deep": ("POST", "c/search", {"vector": V, "filter": nested(100)}, "filter"),
    "a filter 100 deep, in a count": ("POST", "c/points/count", {"filter": nested(100)}, "filter"),
    "a filter 100 deep, in facets": (
        "POST",
        "c/points/facets",
        {"key": "n", "filter": nested(100)},
        "filter",
    ),
    "a filter 100 deep, in an export": ("POST", "c/points/export", {"filter": nested(100)}, "filter"),
    "a filter 100 deep, in a deletion": ("POST", "c/points/delete", {"filter": nested(100)}, "filter"),
    "a filter too wide": (
        "POST",
        "c/search",
        {"vector": V, "filter": {"must": [{"key": "n", "match": 1}] * 2000}},
        "filter",
    ),
    "a search of the wrong dimension": ("POST", "c/search", {"vector": [1.0]}, "vector"),
    "a deletion of everything by mistake": ("POST", "c/points/delete", {}, "ids"),
    "too many ids": ("POST", "c/points/get", {"ids": list(range(1001))}, "ids"),
    "a filter on a name with a backslash": (
        "POST",
        "c/search",
        {"vector": V, "filter": {"must": [{"key": "a\\b", "match": 1}]}},
        "filter.must.0.key",
    ),
    "an index on a name with a backslash": (
        "PUT",
        "d",
        {"dimension": 3, "payload_indexes": {"a\\b": "keyword"}},
        "payload_indexes",
    ),
    "a role too long to be in a catalogue": (
        "PUT",
        "c/points",
        {"points": [{**GOOD, "role": "r" * 129}]},
        "points.0.role",
    ),
    "a search in a role too long": ("POST", "c/search", {"vector": V, "role": "r" * 129}, "role"),
    "a name with dots": ("PUT", "..%2e", {"dimension": 3}, None),
    "a name in capitals": ("PUT", "Docs", {"dimension": 3}, "name"),
    "a name too long": ("PUT", "x" * 65, {"dimension": 3}, "name"),
    "a dimension too large": ("PUT", "d", {"dimension": 10**9}, "dimension"),
    "an engine that there is not": ("PUT", "d", {"dimension": 3, "engine": "faiss"}, "engine"),
    "a bad path to index": (
        "PUT",
        "d",
        {"dimension": 3, "payload_indexes": {"a..b": "keyword"}},
        "payload_indexes",
    ),
    "a distance that there is not": ("PUT", "d", {"dimension": 3, "distance": "manhattan"}, "distance"),
}


@pytest.fixture
def store() -> EdgeStore:
    return EdgeStore()


async def listing(vectord: "Vectord") -> list[tuple[str, int]]:
    collections = (await vectord.call("GET", "/collections"))["collections"]
    return [(item["name"], item["count"]) for item in collections]


async def test_bad_input_is_told_apart_and_writes_nothing(vectord: "Vectord") -> None:
    await vectord.call("PUT", "/collections/c", {"dimension": 3})
    await vectord.put("c", {"id": "there", "vector": V})
    for what, (method, path, body, param) in BAD.items():
        error = await vectord.error(method, f"/collections/{path}", body)
        assert error["type"] == "invalid_request_error", what
        assert error["message"], what
        if param is not None:
            assert error["param"] == param, (what, error)
        assert await listing(vectord) == [("c", 1)], what


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_what_is_no_number_is_refused(vectord: "Vectord", number: str) -> None:
    await vectord.call("PUT", "/collections/c", {"dimension": 3})
    for path, body in (
        ("c/points", '{"points":[{"id":1,"vector":[1,2,%s]}]}'),
        ("c/points", '{"points":[{"id":1,"vector":[1,2,3],"payload":{"n":%s}}]}'),
        ("c/search", '{"vector":[1,2,%s]}'),
    ):
        answer = await vectord.http.request(
            "POST" if path.endswith("search") else "PUT",
            f"/v1/collections/{path}",
            content=body % number,
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == 400, answer.text
    assert await listing(vectord) == [("c", 0)]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("DELETE", "", None),
        ("PUT", "/points", {"points": [GOOD]}),
        ("POST", "/search", {"vector": V}),
        ("POST", "/search/batch", {"searches": [{"vector": V}]}),
        ("POST", "/points/get", {"ids": [1]}),
        ("POST", "/points/scroll", {}),
        ("POST", "/points/count", {}),
        ("POST", "/points/facets", {"key": "n"}),
        ("POST", "/points/export", {}),
        ("POST", "/points/delete", {"ids": [1]}),
        ("POST", "/snapshots", None),
        ("GET", "/snapshots", None),
        ("POST", "/reembed", {}),
        ("GET", "/reembed", None),
    ],
)
async def test_an_unknown_collection_is_not_found(
    vectord: "Vectord", method: str, path: str, body: Any
) -> None:
    error = await vectord.error(method, f"/collections/unknown{path}", body, status=404)
    assert error["code"] == "collection_not_found"


async def test_a_slash_in_a_name_leads_nowhere(vectord: "Vectord", tmp_path: pathlib.Path) -> None:
    for name in ("a/b", "%2e%2e/%2e%2e/etc", "a%2fb", "..%2f..%2fx", ".making-x", ".snapshots"):
        answer = await vectord.http.put(f"/v1/collections/{name}", json={"dimension": 3})
        assert answer.status_code in {400, 404, 405}, name
        assert answer.json()["error"]["message"]
    assert not [path for path in (tmp_path / "vectors").iterdir() if not path.name.startswith(".lock")]


class Usage(NamedTuple):
    """As `shutil.disk_usage` has it."""

    total: int
    used: int
    free: int


async def test_a_full_disk_refuses_writes_and_goes_on_reading(
    open_vectord: "Open", monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    async with open_vectord() as vectord:
        await vectord.call("PUT", "/collections/c", {"dimension": 3})
        await vectord.put("c", {"id": 1, "vector": V})
        kept = (await vectord.call("POST", "/collections/c/snapshots"))["name"]
        with monkeypatch.context() as full:
            full.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 10**6, 10**6))
            for method, path, body in (
                ("PUT", "c/points", {"points": [{"id": 2, "vector": V}]}),
                ("PUT", "d", {"dimension": 3}),
                ("POST", "c/snapshots", None),
                ("POST", "d/restore", {"snapshot": kept, "collection": "c"}),
                ("PUT", "c/snapshots/brought", None),
            ):
                error = await vectord.error(method, f"/collections/{path}", body, status=503)
                assert error["code"] == "disk_full", (path, error)
                assert "nothing of this request was kept" in error["message"]
            assert await vectord.ids("c", {"vector": V}) == [1]
            ready = await vectord.http.get("/readyz")
            assert ready.status_code == 200
            assert not ready.json()["dependencies"]["disk"]["ok"]
            await vectord.call("POST", "/collections/c/points/delete", {"ids": [1]})  # this makes room
        assert await listing(vectord) == [("c", 0)]
        assert not [path for path in (tmp_path / "vectors").rglob("*") if path.name.startswith(".making")]
        await vectord.put("c", {"id": 2, "vector": V})
        assert (await vectord.http.get("/readyz")).json()["dependencies"]["disk"]["ok"]


async def test_a_disk_that_refuses_half_way_leaves_nothing(
    open_vectord: "Open", monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with open_vectord() as vectord:
        await vectord.call("PUT", "/collections/c", {"dimension": 3})
        with monkeypatch.context() as full:
            full.setattr("os.fsync", refuse)
            for method, path, body in (
                ("PUT", "/collections/d", {"dimension": 3}),
                ("POST", "/collections/c/snapshots", None),
                ("PUT", "/roles", {"roles": [{"name": "nurse"}]}),
            ):
                error = await vectord.error(method, path, body, status=503)
                assert error["code"] == "disk_full", (path, error)
                assert "room" in error["message"] or "free space" in error["message"]
        assert await listing(vectord) == [("c", 0)]
        assert (await vectord.call("GET", "/roles"))["roles"] == []
        assert (await vectord.call("GET", "/collections/c/snapshots"))["snapshots"] == []
        left = [path.name for path in (tmp_path / "vectors").rglob("*") if ".making" in path.name]
        assert left == []
