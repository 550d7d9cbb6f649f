"""Collections between engines: chosen, moved while they serve, and left alone when a move fails."""

import contextlib
import pathlib
import random
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import anyio
import pytest
from qdrant_client import QdrantClient

from schemas.vectors import EngineName
from services.testing import client_for, free_port
from tests.unit.vectord.conftest import Embedd, Vectord
from vectord.app import create_app
from vectord.backends import EdgeStore, Query, Record, Scored, Shard, ShardSpec, Where
from vectord.backends.engines import LanceOptions, QdrantOptions, lance_store
from vectord.backends.qdrant import QdrantStore
from vectord.backends.store import OutsideStore
from vectord.settings import Settings

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact:UserWarning"),
]

SPEC = {"dimension": 8, "gated": True, "engine": "auto", "payload_indexes": {"n": "integer"}}
PATIENCE_S = 30


class Faulty:
    """A shard that does one thing wrong."""

    def __init__(self, shard: Shard, fault: str) -> None:
        self._shard = shard
        self._fault = fault

    def upsert(self, records: Sequence[Record]) -> None:
        if self._fault == "fails":
            raise OSError("no space left")
        if self._fault == "loses":
            records = records[1:]
        if self._fault == "changes":
            records = [Record(item.id, item.vector, "else", item.role, item.role_key) for item in records]
        self._shard.upsert(records)

    def search(self, query: Query, where: Where) -> list[Scored]:
        hits = self._shard.search(query, where)
        return hits[:1] if self._fault == "blind" else hits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shard, name)


class Held:
    """A shard that takes nothing in until it is let."""

    def __init__(self, shard: Shard, reached: threading.Event, let: threading.Event) -> None:
        self._shard = shard
        self._reached = reached
        self._let = let

    def upsert(self, records: Sequence[Record]) -> None:
        self._reached.set()
        assert self._let.wait(PATIENCE_S)
        self._shard.upsert(records)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shard, name)


class Changed:
    """A store whose shards are changed by `change`."""

    def __init__(self, store: OutsideStore, change: Callable[[Shard], object]) -> None:
        self._store = store
        self._change = change

    def open(self, folder: pathlib.Path, spec: ShardSpec) -> Shard:
        return cast("Shard", self._change(self._store.open(folder, spec)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class House:
    """A data folder, and vectords that are started on it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.edge = EdgeStore()
        self.qdrant = QdrantStore(lambda: QdrantClient(":memory:"), QdrantOptions())
        self.change: Callable[[Shard], object] = lambda shard: shard

    @contextlib.asynccontextmanager
    async def open(self, **settings: Any) -> AsyncIterator[Vectord]:
        outside: dict[EngineName, Callable[[], OutsideStore]] = {
            "lance": lambda: cast("OutsideStore", Changed(lance_store(LanceOptions()), self.change)),
            "qdrant": lambda: cast("OutsideStore", Changed(self.qdrant, self.change)),
        }
        app = create_app(
            Settings(data=self.folder, **settings),
            store=self.edge,
            outside=outside,
            embedd=Embedd().client(),
        )
        async with client_for(app) as http:
            yield Vectord(http)

    def shards(self, name: str = "c") -> list[str]:
        return sorted(path.name for path in (self.folder / "vectors" / name).glob("shard*"))


@pytest.fixture
def house(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(QdrantStore, "close", lambda _: None)  # its points are in memory: let them stay
    return House(tmp_path)


def points(count: int, start: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(start)
    return [
        {
            "id": number if number % 2 else f"p{number}",
            "vector": [draw.gauss(0, 1) for _ in range(8)],
            "text": f"text number {number}",
            "role": "welder" if number % 3 else "cook",
            "payload": {"n": number, "odd": 'it\'s "so"; DROP --'},
        }
        for number in range(start, start + count)
    ]


async def moved(vectord: Vectord, engine: str) -> dict[str, Any]:
    """Move the collection `c`, and wait for the end of it."""
    begun = await vectord.call("POST", "/collections/c/migrate", {"engine": engine}, status=202)
    assert begun["state"] == "running"
    return await ended(vectord)


async def ended(vectord: Vectord) -> dict[str, Any]:
    with anyio.fail_after(PATIENCE_S):
        while True:
            described: dict[str, Any] = await vectord.call("GET", "/collections/c")
            if described["migration"]["state"] != "running":
                return described
            await anyio.sleep(0.01)


async def everything(vectord: Vectord) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for role in ("welder", "cook"):
        body = {"role": role, "limit": 1000, "with": ["payload", "text"]}
        page = await vectord.call("POST", "/collections/c/points/scroll", body)
        found |= {point["id"]: point for point in page["points"]}
    return found


async def test_a_collection_moves_from_engine_to_engine_and_stays_itself(house: House) -> None:
    async with house.open() as vectord:
        await vectord.call("PUT", "/collections/c", SPEC)
        given = points(520)
        await vectord.put("c", *given)
        before = await everything(vectord)
        for engine in ("lance", "qdrant", "edge"):
            described = await moved(vectord, engine)
            assert described["migration"] == {
                "state": "done", "engine": engine, "done": 520, "total": 520, "recall": 1.0, "error": None
            }  # fmt: skip
            assert (described["engine"], described["count"]) == (engine, 520)
            assert await everything(vectord) == before
            asked = {"vector": given[5]["vector"], "role": "welder", "k": 3}
            assert (await vectord.ids("c", asked))[0] == 5
            words = {"text": "number 7", "mode": "hybrid", "vector": given[7]["vector"], "role": "welder"}
            assert (await vectord.ids("c", words))[0] == 7
            (shard,) = house.shards()  # the one before is gone
            assert shard.startswith(f"shard-{engine}-")
            again = await vectord.call("PUT", "/collections/c", SPEC)
            assert again["engine"] == engine
            error = await vectord.error("POST", "/collections/c/migrate", {"engine": engine}, status=409)
            assert error["code"] == "same_engine"
    async with house.open() as vectord:
        assert await everything(vectord) == before


@pytest.mark.parametrize("engine", ["lance", "qdrant"])
async def test_an_engine_is_chosen_and_found_again(house: House, engine: str) -> None:
    async with house.open() as vectord:
        made = await vectord.call("PUT", "/collections/c", {**SPEC, "engine": engine})
        assert made["engine"] == engine
        assert made["advice"] is None
        answer = await vectord.call(
            "PUT", "/collections/c/points", {"points": points(20), "durability": "fsync"}
        )
        assert answer["durability"] == ("wal" if engine == "qdrant" else "fsync")
        before = await everything(vectord)
    async with house.open() as vectord:
        assert await everything(vectord) == before
        error = await vectord.error("POST", "/collections/c/points/count", {})
        assert error["code"] == "role_required"
        narrow = {"role": "cook", "filter": {"must": [{"key": "odd", "match": 'it\'s "so"; DROP --'}]}}
        assert await vectord.call("POST", "/collections/c/points/count", narrow) == {"count": 7}
        await vectord.call("POST", "/collections/c/points/delete", narrow)
        assert len(await everything(vectord)) == 13
        await vectord.call("DELETE", "/collections/c")
        assert not list((house.folder / "vectors").glob(".deleting*"))


async def test_what_is_written_during_a_move_moves_too(house: House) -> None:
    reached, let = threading.Event(), threading.Event()
    house.change = lambda shard: Held(shard, reached, let)
    async with house.open() as vectord:
        await vectord.call("PUT", "/collections/c", SPEC)
        await vectord.put("c", *points(600))
        await vectord.call("POST", "/collections/c/migrate", {"engine": "lance"}, status=202)
        assert await anyio.to_thread.run_sync(reached.wait, PATIENCE_S)
        await vectord.put("c", *points(50, 600))
        changed = [{**point, "text": "changed"} for point in points(10)]
        await vectord.put("c", *changed)
        gone = {"ids": ["p20", 25, "p600"], "role": "welder"}  # the last one is a cook's
        assert await vectord.call("POST", "/collections/c/points/delete", gone) == {"deleted": 2}
        expected = await everything(vectord)
        assert expected[1]["text"] == "changed"
        assert 25 not in expected
        for method, path in (("DELETE", ""), ("POST", "/migrate")):
            body = {"engine": "qdrant"} if path else None
            error = await vectord.error(method, f"/collections/c{path}", body, status=409)
            assert error["code"] == "collection_moving"
        let.set()
        described = await ended(vectord)
        assert described["migration"]["state"] == "done"
        assert described["engine"] == "lance"
        assert await everything(vectord) == expected


@pytest.mark.parametrize("fault", ["fails", "loses", "changes", "blind"])
async def test_a_failed_move_leaves_the_old_engine_serving(house: House, fault: str) -> None:
    house.change = lambda shard: Faulty(shard, fault)
    async with house.open() as vectord:
        await vectord.call("PUT", "/collections/c", SPEC)
        await vectord.put("c", *points(60))
        before = await everything(vectord)
        described = await moved(vectord, "lance")
        assert described["migration"]["state"] == "failed"
        assert described["migration"]["error"]
        assert described["engine"] == "edge"
        assert house.shards() == ["shard"]
        assert await everything(vectord) == before
        await vectord.put("c", *points(1, 60))
        house.change = lambda shard: shard
        assert (await moved(vectord, "qdrant"))["migration"]["state"] == "done"
        assert len(await everything(vectord)) == 61


async def test_a_move_broken_off_leaves_nothing_behind(house: House) -> None:
    reached, let = threading.Event(), threading.Event()
    house.change = lambda shard: Held(shard, reached, let)
    async with house.open() as vectord:
        await vectord.call("PUT", "/collections/c", SPEC)
        await vectord.put("c", *points(60))
        before = await everything(vectord)
        await vectord.call("POST", "/collections/c/migrate", {"engine": "lance"}, status=202)
        assert await anyio.to_thread.run_sync(reached.wait, PATIENCE_S)
        let.set()
    async with house.open() as vectord:
        assert len(house.shards()) == 1
        assert await everything(vectord) == before


async def test_a_limited_key_does_not_move_a_collection(house: House) -> None:
    async with house.open() as vectord:
        await vectord.call("PUT", "/collections/c", SPEC)
        asked = {"engine": "lance"}
        error = await vectord.error("POST", "/collections/c/migrate", asked, status=403, roles='["cook"]')
        assert error["code"] == "role_forbidden"


async def test_an_engine_that_is_not_configured_says_what_to_set(tmp_path: pathlib.Path) -> None:
    app = create_app(Settings(data=tmp_path), store=EdgeStore(), embedd=Embedd().client())
    async with client_for(app) as http:
        vectord = Vectord(http)
        error = await vectord.error("PUT", "/collections/q", {"dimension": 3, "engine": "qdrant"})
        assert error["code"] == "engine_missing"
        assert error["param"] == "engine"
        assert "VECTORD_QDRANT_URL" in error["message"]
        await vectord.call("PUT", "/collections/c", {"dimension": 3})
        error = await vectord.error("POST", "/collections/c/migrate", {"engine": "qdrant"})
        assert error["code"] == "engine_missing"


async def test_auto_says_when_to_move_and_why(house: House) -> None:
    async with house.open(edge_rows_max=50) as vectord:
        await vectord.call("PUT", "/collections/c", SPEC)
        await vectord.put("c", *points(50))
        advice = (await vectord.call("GET", "/collections/c"))["advice"]
        assert (advice["move_to"], advice["rows"], advice["rows_max"]) == (None, 50, 50)
        await vectord.put("c", *points(1, 50))
        advice = (await vectord.call("GET", "/collections/c"))["advice"]
        assert advice["move_to"] == "lance"
        assert "51 rows are more than the 50" in advice["reason"]
        assert (await moved(vectord, "lance"))["advice"]["move_to"] is None
    async with house.open(edge_memory_bytes_max=1000) as vectord:
        await vectord.call("PUT", "/collections/d", {"dimension": 8, "engine": "auto"})
        await vectord.put("d", {"id": 1, "vector": [1.0] * 8}, {"id": 2, "vector": [1.0] * 8})
        await vectord.put("d", {"id": 3, "vector": [1.0] * 8})
        advice = (await vectord.call("GET", "/collections/d"))["advice"]
        assert (advice["move_to"], advice["memory_bytes"]) == ("lance", 3 * 432)


@pytest.mark.enable_socket
async def test_a_qdrant_that_is_away_is_told_and_comes_back(house: House, tmp_path: pathlib.Path) -> None:
    async with house.open() as vectord:
        await vectord.call("PUT", "/collections/c", {**SPEC, "engine": "qdrant"})
        await vectord.put("c", *points(3))
        await vectord.call("PUT", "/collections/other", {"dimension": 3})
    nowhere = f"http://127.0.0.1:{free_port()}"
    app = create_app(Settings(data=tmp_path, qdrant_url=nowhere), store=house.edge, embedd=Embedd().client())
    async with client_for(app) as http:
        vectord = Vectord(http)
        error = await vectord.error("POST", "/collections/c/points/count", {"role": "cook"}, status=503)
        assert "VECTORD_QDRANT_URL" in error["message"]
        await vectord.error("PUT", "/collections/new", {"dimension": 3, "engine": "qdrant"}, status=503)
        listed = await vectord.call("GET", "/collections")
        assert [item["name"] for item in listed["collections"]] == ["other"]
    async with house.open() as vectord:
        assert len(await everything(vectord)) == 3
