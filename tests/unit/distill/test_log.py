import asyncio
import contextlib
import shutil
import sqlite3
import threading
from pathlib import Path

import httpx
import pytest

from distill.backends import FakeDisk
from distill.engine.segments import LogDamaged, LogInUse
from tests.unit.distill.builders import distill, done, lines, ndjson, run, send, verdict_record

pytestmark = pytest.mark.anyio


def segment(data: Path, number: int = 1) -> Path:
    return data / "log" / f"runs-{number:06d}.jsonl"


async def fill(data: Path, count: int, segment_bytes_max: int = 1 << 20) -> None:
    async with distill(data, segment_bytes_max=segment_bytes_max) as client:
        for number in range(count):
            await send(client, [run(f"r{number}")])


async def starts(data: Path) -> None:
    async with distill(data):
        pass


async def test_a_torn_tail_is_moved_aside_and_counted(tmp_path: Path) -> None:
    await fill(tmp_path, 2)
    whole = segment(tmp_path).read_bytes()
    segment(tmp_path).write_bytes(whole + b'{"schema":"stillhouse.run","ru')
    async with distill(tmp_path) as client:
        assert "distill_torn_tails_total 1.0" in (await client.get("/metrics")).text
        assert (await send(client, [run("r0"), run("r2")]))["accepted"] == 2
    assert segment(tmp_path).with_name(f"runs-000001.jsonl.torn-{len(whole)}").read_bytes().endswith(b'"ru')
    assert segment(tmp_path).read_bytes().startswith(whole)
    segment(tmp_path).write_bytes(whole + b"again")
    await starts(tmp_path)
    assert len(list((tmp_path / "log").glob("*.torn-*"))) == 2
    assert segment(tmp_path).read_bytes() == whole


async def test_appending_goes_on_behind_a_tail_that_was_moved_aside(tmp_path: Path) -> None:
    await fill(tmp_path, 2)
    with segment(tmp_path).open("ab") as file:
        file.write(b'{"schema"')
    async with distill(tmp_path) as client:
        await send(client, [run("r2")])
    assert [record["run_id"] for record in lines(segment(tmp_path))] == ["r0", "r1", "r2"]


async def test_damage_in_the_middle_is_named_and_nothing_is_appended(tmp_path: Path) -> None:
    await fill(tmp_path, 3)
    content = bytearray(segment(tmp_path).read_bytes())
    offset = content.index(b"\n") + 1
    content[offset] = 0
    segment(tmp_path).write_bytes(content)
    with pytest.raises(LogDamaged, match=rf"runs-000001\.jsonl: the line at offset {offset}"):
        await starts(tmp_path)
    assert segment(tmp_path).read_bytes() == content


async def test_full_segments_are_sealed_and_a_flipped_byte_breaks_the_seal(tmp_path: Path) -> None:
    await fill(tmp_path, 30, segment_bytes_max=4096)
    assert segment(tmp_path, 2).exists()
    manifest = lines(tmp_path / "log" / "runs-000001.manifest.json")[0]
    assert manifest["bytes"] == segment(tmp_path).stat().st_size <= 4096
    async with distill(tmp_path) as client:
        assert (await client.get("/v1/runs/r29")).status_code == 200
    content = segment(tmp_path).read_bytes()
    segment(tmp_path).write_bytes(content.replace(b"answer r0", b"answer r9"))
    with pytest.raises(LogDamaged, match="is not what was sealed"):
        await starts(tmp_path)


@pytest.mark.parametrize("victim", ["runs-000001.jsonl", "runs-000001.manifest.json"])
async def test_a_missing_piece_is_named(tmp_path: Path, victim: str) -> None:
    await fill(tmp_path, 30, segment_bytes_max=4096)
    (tmp_path / "log" / victim).unlink()
    with pytest.raises(LogDamaged, match=victim.replace(".", r"\.")):
        await starts(tmp_path)


async def test_the_folder_has_one_owner(tmp_path: Path) -> None:
    async with distill(tmp_path):
        with pytest.raises(LogInUse, match="is held by another distill"):
            await starts(tmp_path)
    await starts(tmp_path)


async def test_logs_of_several_writers_lie_in_one_folder(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    async with distill(here, writer_id="a") as client:
        await send(client, [run("r1")])
    async with distill(there, writer_id="b") as client:
        await send(client, [run("r2")])
    shutil.copy(there / "log" / "runs-b-000001.jsonl", here / "log")
    async with distill(here, writer_id="a") as client:
        assert (await client.get("/v1/runs/r2")).status_code == 200
        await send(client, [run("r3")])
    assert [record["run_id"] for record in lines(here / "log" / "runs-a-000001.jsonl")] == ["r1", "r3"]


class SlowDisk(FakeDisk):
    """A disk whose syncs wait until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def sync(self, fd: int) -> None:
        assert self.gate.wait(timeout=30)
        super().sync(fd)


async def in_flight(client: httpx.AsyncClient) -> int:
    text = (await client.get("/metrics")).text
    return int(float(text.partition("\nhttp_requests_in_flight ")[2].split()[0]))


async def test_requests_at_once_share_a_sync(tmp_path: Path) -> None:
    disk = SlowDisk()
    async with distill(tmp_path, disk=disk) as client:
        sending = [asyncio.ensure_future(send(client, [run(f"r{number}")])) for number in range(64)]
        for _ in range(100_000):
            if await in_flight(client) == 64:
                break
            await asyncio.sleep(0)
        disk.gate.set()
        await asyncio.gather(*sending)
    assert len(lines(segment(tmp_path))) == 64
    assert disk.syncs < 32


async def test_of_one_id_sent_twice_at_once_one_is_written(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        answers = await asyncio.gather(
            *(client.post("/v1/runs", json=run("r1", answer=text)) for text in ("x", "x", "y"))
        )
    one, same, other = (answer.status_code for answer in answers)
    assert one == same
    assert {one, other} == {200, 409}  # whichever came first
    assert len(lines(segment(tmp_path))) == 1


@pytest.mark.parametrize("capacity_bytes", [0, 1, 700])
async def test_a_full_disk_refuses_and_leaves_nothing_half_written(
    tmp_path: Path, capacity_bytes: int
) -> None:
    disk = FakeDisk()
    async with distill(tmp_path, disk=disk) as client:
        await send(client, [run("r1")])
        before = segment(tmp_path).read_bytes()
        disk.capacity_bytes = capacity_bytes
        response = await client.post("/v1/runs", content=ndjson(run(f"r{number}") for number in range(2, 5)))
        assert (response.status_code, response.json()["error"]["code"]) == (503, "disk_full")
        assert "retry-after" in response.headers
        assert segment(tmp_path).read_bytes() == before
        assert (await client.get("/readyz")).status_code == 503
        disk.capacity_bytes = 1 << 40
        assert (await send(client, [run("r2")]))["accepted"] == 1
        assert (await client.get("/readyz")).status_code == 200


async def test_after_a_failed_sync_nothing_is_acknowledged_until_a_restart(tmp_path: Path) -> None:
    disk = FakeDisk()
    async with distill(tmp_path, disk=disk) as client:
        await send(client, [run("r1")])
        disk.sync_fails = True
        assert (await client.post("/v1/runs", json=run("r2"))).status_code == 503
        disk.sync_fails = False
        assert (await client.post("/v1/runs", json=run("r3"))).status_code == 503
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "could not be synced" in ready.json()["dependencies"]["log"]["reason"]
        assert (await client.get("/v1/runs/r1")).status_code == 200
    async with distill(tmp_path) as client:
        assert (await send(client, [run("r2")]))["accepted"] == 1


async def test_what_was_queued_behind_a_failed_sync_is_not_written(tmp_path: Path) -> None:
    disk = SlowDisk()
    async with distill(tmp_path, disk=disk) as client:
        sending = [asyncio.ensure_future(client.post("/v1/runs", json=run(f"r{n}"))) for n in range(3)]
        for _ in range(100_000):
            if await in_flight(client) == 3:
                break
            await asyncio.sleep(0)
        disk.sync_fails = True
        disk.gate.set()
        assert {response.status_code for response in await asyncio.gather(*sending)} == {503}
    assert segment(tmp_path).read_bytes() == b""


async def test_what_waits_for_the_disk_is_bounded(tmp_path: Path) -> None:
    disk = SlowDisk()
    async with distill(tmp_path, disk=disk, queue_bytes_max=4096) as client:
        big = [run(f"r{number}", answer="x" * 3000) for number in range(8)]
        sending = [asyncio.ensure_future(client.post("/v1/runs", json=one)) for one in big]
        await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
        disk.gate.set()
        statuses = [response.status_code for response in await asyncio.gather(*sending)]
    assert set(statuses) == {200, 429}
    assert len(lines(segment(tmp_path))) == statuses.count(200)


async def test_replicas_write_beside_one_another_and_see_each_others_runs(tmp_path: Path) -> None:
    async with distill(tmp_path, writer_id="a") as one, distill(tmp_path, writer_id="b") as other:
        await send(one, [run("r1"), run("both")])
        await send(other, [run("r2"), run("both")])
        assert (await one.get("/v1/runs/r2")).status_code == 200
        assert (await other.get("/v1/runs/r1")).status_code == 200
        job = await done(other, stage="materialize")
    assert job["counts"]["in"] == 4
    assert (job["counts"]["out"], job["counts"]["duplicates"]) == (3, 1)
    names = sorted(path.name for path in (tmp_path / "log").glob("runs-*.jsonl"))
    assert names == ["runs-a-000001.jsonl", "runs-b-000001.jsonl"]


def index(data: Path) -> Path:
    return data / "distill" / "index" / "log-own.sqlite"


async def knows(data: Path, *run_ids: str) -> None:
    """These runs are found, and are not written again."""
    async with distill(data) as client:
        for run_id in run_ids:
            assert (await client.get(f"/v1/runs/{run_id}")).json()["run"]["run_id"] == run_id
        assert (await send(client, [run(run_id) for run_id in run_ids]))["accepted"] == len(run_ids)
    assert len(lines(segment(data))) == len(run_ids)


async def test_an_index_that_is_gone_damaged_or_behind_is_made_again(tmp_path: Path) -> None:
    await fill(tmp_path, 2)
    await knows(tmp_path, "r0", "r1")
    index(tmp_path).unlink()
    await knows(tmp_path, "r0", "r1")
    index(tmp_path).write_bytes(b"no database " * 1000)
    await knows(tmp_path, "r0", "r1")
    before = index(tmp_path).read_bytes()
    await fill(tmp_path, 3)
    index(tmp_path).write_bytes(before)  # as if the last group had not reached it
    await knows(tmp_path, "r0", "r1", "r2")


async def test_an_index_of_another_log_is_not_believed(tmp_path: Path) -> None:
    await fill(tmp_path, 3)
    content = segment(tmp_path).read_bytes()
    segment(tmp_path).write_bytes(content.replace(b"r2", b"r9"))
    async with distill(tmp_path) as client:
        assert (await client.get("/v1/runs/r2")).status_code == 404
        assert (await client.get("/v1/runs/r9")).status_code == 200


async def test_what_the_index_has_not_written_yet_is_known_like_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.engine.index.NEW_MAX", 8)
    async with distill(tmp_path) as client:
        for first in range(0, 30, 3):
            batch = [run(f"r{number}") for number in range(first, first + 3)]
            said = [verdict_record(f"r{first}"), verdict_record(f"r{first}", "rejected", "a.b")]
            for _ in range(2):
                assert (await send(client, [*batch, *said]))["accepted"] == 5
            for earlier in range(0, first + 1, 3):
                view = (await client.get(f"/v1/runs/r{earlier}")).json()
                assert [one["verdict"]["verdict"] for one in view["verdicts"]] == ["accepted", "rejected"]
                assert (await send(client, [run(f"r{earlier}", answer="other")]))["accepted"] == 0
    assert len(lines(segment(tmp_path))) == 50
    async with distill(tmp_path) as client:  # the index was written to the end
        assert (await send(client, [run(f"r{number}") for number in range(30)]))["accepted"] == 30
    assert len(lines(segment(tmp_path))) == 50


async def test_a_group_is_refused_while_the_index_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.engine.index.NEW_MAX", 2)
    async with distill(tmp_path) as client:
        await send(client, [run("r0"), run("r1")])
        before = segment(tmp_path).read_bytes()
        with contextlib.closing(sqlite3.connect(index(tmp_path))) as other:
            other.execute("alter table segments rename to gone")
        response = await client.post("/v1/runs", json=run("r2"))
        assert (response.status_code, response.json()["error"]["code"]) == (503, "disk_full")
        assert segment(tmp_path).read_bytes() == before
        with contextlib.closing(sqlite3.connect(index(tmp_path))) as other:
            other.execute("alter table gone rename to segments")
        assert (await send(client, [run("r1"), run("r2")]))["accepted"] == 2
    await knows(tmp_path, "r0", "r1", "r2")
