"""Records reach distill once it is there, and wait on disk until then."""

from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry

from chatd.backends import Step
from chatd.engine import Metrics, Spool
from services.errors import Unavailable
from tests.unit.chatd.conftest import World
from tests.waiting import until

pytestmark = pytest.mark.anyio

ASK = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}


def spool_in(folder: Path, **limits: int) -> Spool:
    defaults = {"bytes_max": 10_000, "segment_bytes_max": 1000, "rejected_bytes_max": 1000}
    spool = Spool(folder, Metrics(CollectorRegistry()), **{**defaults, **limits})
    spool.open()
    return spool


def files(world: World) -> list[str]:
    return [path.name for path in world.spool.iterdir()]


async def test_records_wait_for_distill_and_are_deleted_when_it_has_them(world: World) -> None:
    world.script(Step.saying("one"), Step.saying("two"))
    world.distill.down = True
    async with world.client() as client:
        for _ in range(2):
            assert (await client.post("/v1/chat/completions", json=ASK)).status_code == 200
        await until(lambda: world.distill.calls > 2)
        assert len(world.records()) == 2
        world.distill.down = False
        await until(lambda: files(world) == [])
    assert [record["output"]["content"] for record in world.distill.records] == ["one", "two"]


async def test_the_next_start_sends_what_the_last_one_could_not(world: World) -> None:
    world.script(Step.saying("one"))
    world.distill.down = True
    async with world.client() as client:
        await client.post("/v1/chat/completions", json=ASK)
    assert len(files(world)) == 1
    world.distill.down = False
    async with world.client():
        await until(lambda: len(world.distill.records) == 1)
        await until(lambda: files(world) == [])


@pytest.mark.parametrize("whole_batches", [True, False])
async def test_refused_records_are_set_aside_and_hold_up_nobody(world: World, whole_batches: bool) -> None:
    world.script(*[Step.saying(word) for word in ("one", "two", "three", "four")])
    world.distill.refuse = lambda record: record["output"]["content"] == "two"
    world.distill.refuse_batches = whole_batches
    world.distill.down = True
    async with world.client() as client:
        for _ in range(4):
            await client.post("/v1/chat/completions", json=ASK)
        world.distill.down = False
        await until(lambda: files(world) == ["rejected.jsonl"])
        metrics = (await client.get("/metrics")).text
    assert [record["output"]["content"] for record in world.distill.records] == ["one", "three", "four"]
    (line,) = (world.spool / "rejected.jsonl").read_bytes().splitlines()
    assert orjson.loads(line)["record"]["output"]["content"] == "two"
    assert "chatd_records_rejected_total 1.0" in metrics


async def test_a_full_spool_refuses_calls_rather_than_lose_their_records(world: World) -> None:
    provider = world.script(Step.saying("one"))
    world.settings = {"spool_bytes_max": 1}
    world.distill.down = True
    async with world.client() as client:
        first = await client.post("/v1/chat/completions", json=ASK)
        second = await client.post("/v1/chat/completions", json=ASK)
    assert first.status_code == 200
    assert (second.status_code, second.json()["error"]["code"]) == (503, "spool_full")
    assert "retry-after" in second.headers
    assert len(provider.requests) == 1


def test_segments_of_a_living_process_are_left_alone(tmp_path: Path) -> None:
    one = spool_in(tmp_path)
    one.append(b'{"a":1}\n')
    two = spool_in(tmp_path)
    assert two.oldest() is None
    one.close()
    three = spool_in(tmp_path)
    segment = three.oldest()
    assert segment is not None
    assert segment.lines() == [b'{"a":1}\n']
    three.drop(segment)
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_a_crash_cut_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "segment-1.jsonl").write_bytes(b'{"a":1}\n{"b":')
    spool = spool_in(tmp_path)
    segment = spool.oldest()
    assert segment is not None
    assert segment.lines() == [b'{"a":1}\n']
    spool.close()


def test_a_segment_has_a_limit_and_the_order_is_kept(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, segment_bytes_max=10)
    for number in range(3):
        spool.append(b'{"n":%d}   \n' % number)
    assert len(list(tmp_path.glob("segment-*"))) == 3
    seen: list[bytes] = []
    while (segment := spool.oldest()) is not None:
        seen += segment.lines()
        spool.drop(segment)
    assert [orjson.loads(line)["n"] for line in seen] == [0, 1, 2]


def test_a_disk_that_refuses_is_reported(tmp_path: Path) -> None:
    spool = spool_in(tmp_path / "spool")
    (tmp_path / "spool").rmdir()
    with pytest.raises(Unavailable) as caught:
        spool.append(b"{}\n")
    assert caught.value.code == "spool_failed"


def test_the_file_of_refused_records_is_bounded(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, rejected_bytes_max=50)
    for _ in range(4):
        spool.reject(b'{"a":1}\n', "conflict", "differs")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["rejected.1.jsonl", "rejected.jsonl"]
