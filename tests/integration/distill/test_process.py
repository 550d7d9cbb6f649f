"""A real `python -m distill`: what it acknowledged survives its death."""

import asyncio
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import orjson
import pytest

from schemas.distill import RunView
from schemas.runs import Run, VerdictRecord
from services.clients import DistillClient
from services.http import PeerClient
from tests.processes import running, started
from tests.unit.distill.builders import run, verdict, verdict_record

pytestmark = pytest.mark.enable_socket

ANY_DISK = {"DISTILL_DISK_FREE_BYTES_MIN": "0"}
SMALL_SEGMENTS = {**ANY_DISK, "DISTILL_SEGMENT_BYTES_MAX": "65536"}
FILES_OF_8_KIB = """
import os, resource, runpy
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the log would be one of the files
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
runpy.run_module("distill", run_name="__main__")
"""


def segments(data: Path) -> list[bytes]:
    return [
        line
        for path in sorted((data / "log").glob("runs-*.jsonl"))
        for line in path.read_bytes().splitlines(keepends=True)
    ]


def write_until_dead(url: str, name: str, acknowledged: list[str]) -> None:
    """Send records, each batch again until it is acknowledged, and note what was."""
    with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:
        for number in range(100_000):
            batch = [run(f"{name}-{number}-{part}") for part in range(3)]
            batch.append(verdict_record(f"{name}-{number}-0"))
            try:
                response = client.post(
                    "/v1/runs", content=b"".join(orjson.dumps(one) + b"\n" for one in batch)
                )
            except httpx.TransportError:
                return
            if response.status_code == 200:
                assert response.json()["accepted"] == 4
                acknowledged += [one["run_id"] for one in batch[:3]]


def test_nothing_acknowledged_is_lost_or_doubled_when_the_process_is_killed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    acknowledged: list[str] = []
    for life in range(5):
        with running("distill", tmp_path, env=SMALL_SEGMENTS) as distill:
            if life:  # a client that saw no answer sends again
                resent = [orjson.dumps(run(run_id)) + b"\n" for run_id in acknowledged[-20:]]
                assert httpx.post(f"{distill.url}/v1/runs", content=b"".join(resent), trust_env=False).json()[
                    "accepted"
                ] == len(resent)
            writers = [
                threading.Thread(
                    target=write_until_dead, args=(distill.url, f"{life}-{number}", acknowledged)
                )
                for number in range(4)
            ]
            for writer in writers:
                writer.start()
            enough = len(acknowledged) + 30 * (life + 1)
            while len(acknowledged) < enough:
                assert distill.process.poll() is None, distill.text()
                time.sleep(0.01)
            distill.kill()
            for writer in writers:
                writer.join()
    with running("distill", tmp_path, env=ANY_DISK) as distill:
        assert distill.stop() == 0
    records = [orjson.loads(line) for line in segments(data)]
    written = Counter(one["run_id"] for one in records if one["schema"] == "stillhouse.run")
    assert len(acknowledged) > 100
    assert set(acknowledged) <= set(written)
    assert set(written.values()) == {1}
    assert len(list((data / "log").glob("*.manifest.json"))) > 0


def test_a_second_process_is_refused_with_the_reason(tmp_path: Path) -> None:
    with running("distill", tmp_path, env=ANY_DISK) as first:
        with started("distill", tmp_path, env=ANY_DISK) as second:
            assert second.process.wait(30) != 0
        assert f"is held by another distill (pid {first.process.pid})" in second.text()
        assert httpx.get(f"{first.url}/readyz", trust_env=False).status_code == 200


def test_a_damaged_log_stops_the_start_and_is_named(tmp_path: Path) -> None:
    log = tmp_path / "data" / "log"
    log.mkdir(parents=True)
    (log / "runs-000001.jsonl").write_bytes(b'{"schema":"stillhouse.run"}\nbroken\n{}\n')
    with started("distill", tmp_path, env=ANY_DISK) as child:
        assert child.process.wait(30) != 0
    assert "runs-000001.jsonl: the line at offset 28 (7 bytes) is not a record" in child.text()


def test_a_full_disk_is_a_503_and_the_log_stays_whole(tmp_path: Path) -> None:
    with running("distill", tmp_path, program=("-c", FILES_OF_8_KIB), env=ANY_DISK) as distill:
        url = distill.url
        statuses = [
            httpx.post(
                f"{url}/v1/runs", json=run(f"r{number}", answer="x" * 500), trust_env=False
            ).status_code
            for number in range(20)
        ]
        assert set(statuses) == {200, 503}
        first_refused = statuses.index(503)
        answer = httpx.post(f"{url}/v1/runs", json=run("big", answer="x" * 500), trust_env=False).json()
        assert answer["error"]["code"] == "disk_full"
        assert httpx.get(f"{url}/v1/runs/r0", trust_env=False).status_code == 200
    lines = segments(tmp_path / "data")
    assert [orjson.loads(line)["run_id"] for line in lines][:first_refused] == [
        f"r{number}" for number in range(first_refused)
    ]
    assert all(line.endswith(b"\n") for line in lines)
    assert len(lines) == statuses.count(200)


def test_the_client_of_the_other_daemons_hands_records_over(tmp_path: Path) -> None:
    judged = Run.model_validate(run("r1", episode_id="e1", verdict=verdict()))
    later = VerdictRecord.model_validate(verdict_record("r1"))

    async def story(url: str) -> None:
        async with DistillClient(PeerClient("distill", url)) as client:
            await client.ping()
            for _ in range(2):  # a spool that saw no answer sends again
                answer = await client.append([judged.to_line(), later.to_line()])
                assert (answer.accepted, answer.rejected) == (2, [])
            changed = judged.model_copy(update={"latency_ms": 1.0})
            answer = await client.append([changed.to_line()])
            assert [(one.line, one.code) for one in answer.rejected] == [(1, "run_id_conflict")]

    with running("distill", tmp_path, env=ANY_DISK) as distill:
        asyncio.run(story(distill.url))
        view = httpx.get(f"{distill.url}/v1/runs/r1", trust_env=False).json()
    assert RunView.model_validate(view).run == judged
    assert len(segments(tmp_path / "data")) == 2
