"""A store that is full, or does not open: told apart, nothing half-done, no restart once it is mended."""

import pathlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from vectord.backends import FakeStore, ShardSpec, StoreError
from vectord.backends.fake import FakeShard

if TYPE_CHECKING:
    from tests.unit.vectord.conftest import Open, Vectord

pytestmark = pytest.mark.anyio

V = [1.0, 2.0, 3.0]
POINTS: dict[str, Any] = {"points": [{"id": 2, "vector": V}, {"id": 3, "vector": V}]}


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


async def until_found(vectord: "Vectord", name: str) -> dict[str, Any]:
    with anyio.fail_after(30):
        while True:
            answer = await vectord.http.get(f"/v1/collections/{name}")
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
            await anyio.sleep(0.01)


async def test_a_store_without_room_refuses_writes_and_is_read_on(
    open_vectord: "Open", store: FakeStore
) -> None:
    async with open_vectord(disk_free_bytes_min=0) as vectord:
        await vectord.call("PUT", "/collections/c", {"dimension": 3})
        await vectord.put("c", {"id": 1, "vector": V})
        kept = (await vectord.call("POST", "/collections/c/snapshots"))["name"]
        store.full = True
        for method, path, body in (
            ("PUT", "c/points", POINTS),
            ("POST", "c/points/delete", {"ids": [1]}),
            ("PUT", "d", {"dimension": 3}),
            ("POST", "d/restore", {"snapshot": kept, "collection": "c"}),
        ):
            answer = await vectord.http.request(method, f"/v1/collections/{path}", json=body)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (503, "disk_full"), path
            assert error["type"] == "unavailable_error"
            assert "free space" in error["message"]
            assert answer.headers["retry-after"] == "5"
        assert await vectord.ids("c", {"vector": V}) == [1]
        listed = (await vectord.call("GET", "/collections"))["collections"]
        assert [(item["name"], item["count"]) for item in listed] == [("c", 1)]
        assert (await vectord.http.get("/readyz")).status_code == 200
        store.full = False
        await vectord.call("PUT", "/collections/c/points", POINTS)
        await vectord.call("PUT", "/collections/d", {"dimension": 3})
        assert len(await vectord.ids("c", {"vector": V})) == 3


async def test_what_did_not_open_is_tried_again(open_vectord: "Open", store: FakeStore) -> None:
    async with open_vectord() as vectord:
        await vectord.call("PUT", "/collections/c", {"dimension": 3})
        await vectord.put("c", {"id": 1, "vector": V})
    store.shut = True
    async with open_vectord(reopen_interval_s=0.01) as vectord:
        await vectord.error("POST", "/collections/c/search", {"vector": V}, status=503)
        assert (await vectord.http.get("/readyz")).status_code == 503
        store.shut = False
        assert (await until_found(vectord, "c"))["count"] == 1
        assert (await vectord.http.get("/readyz")).status_code == 200
        await vectord.put("c", {"id": 2, "vector": V})


async def test_what_was_made_and_does_not_open_is_not_made_twice(
    open_vectord: "Open", store: FakeStore
) -> None:
    async with open_vectord(reopen_interval_s=0.01) as vectord:
        store.shut = True
        for _ in range(2):
            await vectord.error("PUT", "/collections/c", {"dimension": 3}, status=503)
        store.shut = False
        await until_found(vectord, "c")
        await vectord.call("PUT", "/collections/c", {"dimension": 3})
        await vectord.call("DELETE", "/collections/c")
        await vectord.call("PUT", "/collections/c", {"dimension": 3})


class Clinging(FakeStore):
    """Shards that do not close, as those of a worker that is gone."""

    def open(self, folder: pathlib.Path, spec: ShardSpec) -> FakeShard:
        shard = super().open(folder, spec)
        shard.close = self._close  # type: ignore[method-assign] # the point of the test
        return shard

    def _close(self) -> None:
        raise StoreError("it does not close")


async def test_a_shard_that_does_not_close_is_deleted_all_the_same(open_vectord: "Open") -> None:
    async with open_vectord(Clinging()) as vectord:
        await vectord.call("PUT", "/collections/c", {"dimension": 3})
        await vectord.call("DELETE", "/collections/c")
        await vectord.error("GET", "/collections/c", status=404)
        await vectord.call("PUT", "/collections/c", {"dimension": 3})


class Failing(FakeStore):
    """One collection fails at whatever it is asked."""

    def open(self, folder: pathlib.Path, spec: ShardSpec) -> FakeShard:
        shard = super().open(folder, spec)
        if spec.name == "bad":
            shard.info = self._fail  # type: ignore[method-assign] # the point of the test
        return shard

    def _fail(self, *_: object) -> Any:
        raise StoreError("the shard is damaged")


async def test_a_collection_that_fails_hides_no_other(open_vectord: "Open") -> None:
    async with open_vectord(Failing()) as vectord:
        await vectord.call("PUT", "/collections/good", {"dimension": 3})
        error = await vectord.error("PUT", "/collections/bad", {"dimension": 3}, status=500)
        assert error["code"] == "store_failed"
        listed = (await vectord.call("GET", "/collections"))["collections"]
        assert [item["name"] for item in listed] == ["good"]
