"""Writes that shall be on the medium share a flush: on a slow disk none waits for more than two."""

import pathlib
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from vectord.backends import FakeStore, ShardSpec, StoreError
from vectord.backends.fake import FakeShard

if TYPE_CHECKING:
    from tests.unit.vectord.conftest import Vectord

pytestmark = pytest.mark.anyio

WRITERS = 20

Open = Callable[..., AbstractAsyncContextManager["Vectord"]]


class SlowDisk(FakeStore):
    """Flushes nothing before it may. `bad` is the number of a flush that fails."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0
        self.bad: int | None = None
        self.may = threading.Event()
        self.may.set()

    def open(self, folder: pathlib.Path, spec: ShardSpec) -> FakeShard:
        shard = super().open(folder, spec)
        shard.flush = self._flush  # type: ignore[method-assign] # the point of the test
        return shard

    def _flush(self) -> None:
        self.begun += 1
        assert self.may.wait(30)
        if self.begun == self.bad:
            raise StoreError("the disk is gone")


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not holds():  # noqa: ASYNC110 - a thread does it
            await anyio.sleep(0.005)


async def write(vectord: "Vectord", number: int, durability: str, statuses: list[int]) -> None:
    body = {"points": [{"id": number, "vector": [1.0, 0.0, 0.0]}], "durability": durability}
    answer = await vectord.http.put("/v1/collections/c/points", json=body)
    statuses.append(answer.status_code)
    if answer.status_code == 200:
        assert answer.json()["durability"] == durability


async def write_during_a_flush(
    disk: SlowDisk, open_vectord: Open, *, second_fails: bool = False
) -> tuple[list[int], list[Any]]:
    """Write once, and more while its flush is under way. Returns the statuses, and what is there then."""
    statuses: list[int] = []
    async with open_vectord(disk) as vectord:
        await vectord.call("PUT", "/collections/c", {"dimension": 3})
        before = disk.begun
        disk.bad = before + 2 if second_fails else None
        disk.may.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(write, vectord, 0, "fsync", statuses)
            await until(lambda: disk.begun == before + 1)
            for number in range(1, WRITERS):
                group.start_soon(write, vectord, number, "fsync" if number % 2 else "wal", statuses)
            assert await vectord.ids("c", {"vector": [1.0, 0.0, 0.0]}) == [0], "searches go on"
            await anyio.sleep(0.5)  # they all wait by now; one that does not has a flush more
            disk.may.set()
        found = await vectord.call("POST", "/collections/c/points/scroll", {"limit": 100})
        assert disk.begun <= before + WRITERS // 4
    return statuses, found["points"]


async def test_those_who_come_during_a_flush_share_the_next(open_vectord: Open) -> None:
    statuses, points = await write_during_a_flush(SlowDisk(), open_vectord)
    assert statuses == [200] * WRITERS
    assert len(points) == WRITERS


async def test_a_flush_that_fails_is_told_to_those_who_share_it_alone(open_vectord: Open) -> None:
    statuses, points = await write_during_a_flush(SlowDisk(), open_vectord, second_fails=True)
    assert statuses.count(200) >= WRITERS // 2
    assert set(statuses) == {200, 500}
    assert len(points) == WRITERS, "it was written, and would have outlived the process"
