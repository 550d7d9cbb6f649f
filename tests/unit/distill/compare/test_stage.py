"""The stage `compare`, through the door of the daemon."""

import json
from pathlib import Path

import httpx
import pytest

from tests.unit.distill.builders import distill, done, finished
from tests.unit.distill.compare.arms import FAILED, PASSED, passing, write

pytestmark = pytest.mark.anyio

GAIN = passing((40, PASSED), (10, FAILED))
LOSS = passing((20, PASSED), (30, FAILED))


async def refused(client: httpx.AsyncClient, **fields: object) -> dict[str, str]:
    answer = await client.post("/v1/distill/jobs", json={"stage": "compare", **fields})
    assert answer.status_code == 400
    error: dict[str, str] = answer.json()["error"]
    return error


async def test_two_replays_are_compared_and_reported(tmp_path: Path) -> None:
    write(tmp_path, "old", LOSS)
    write(tmp_path, "new", GAIN)
    async with distill(tmp_path) as client:
        job = await done(client, stage="compare", baseline="old", current="new")
        made = job["comparison"]
        assert made["verdict"] == "better"
        assert job["counts"] == {"in": 50, "paired": 50, "only_baseline": 0, "only_current": 0}
        files = f"/v1/distill/comparisons/{made['comparison_id']}/files"
        report = await client.get(f"{files}/report.html")
        assert report.headers["content-type"] == "text/html; charset=utf-8"
        assert report.text.startswith("<!doctype html>")
        assert (await client.get(f"{files}/comparison.json")).json() == made


async def test_the_same_replays_give_the_same_bytes(tmp_path: Path) -> None:
    def products() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in (tmp_path / "comparisons").rglob("*.*")}

    write(tmp_path, "old", LOSS)
    write(tmp_path, "new", GAIN)
    async with distill(tmp_path) as client:
        await done(client, stage="compare", baseline="old", current="new")
        first = products()
        await done(client, stage="compare", baseline="old", current="new")
        assert products() == first
        await done(client, stage="compare", baseline="old", current="new", seed=1)
        assert len(products()) == 2 * len(first)


async def test_the_recorded_answers_are_the_baseline_unless_said(tmp_path: Path) -> None:
    write(tmp_path, "new", GAIN)
    write(tmp_path, "new.recorded", GAIN)
    async with distill(tmp_path) as client:
        job = await done(client, stage="compare", current="new")
    assert job["comparison"]["baseline"]["replay_id"] == "new.recorded"
    assert job["comparison"]["verdict"] == "no evidence"


@pytest.mark.parametrize(
    ("gate", "state"),
    [
        ("not worse at 95 %", "failed"),
        ("not worse than 99 points at 95 %", "done"),
        ("better at 90 %", "failed"),
    ],
)
async def test_a_gate_decides_the_end_of_the_job(tmp_path: Path, gate: str, state: str) -> None:
    write(tmp_path, "old", GAIN)
    write(tmp_path, "new", LOSS)
    async with distill(tmp_path) as client:
        job = await finished(client, stage="compare", baseline="old", current="new", gate=gate)
    assert job["state"] == state
    assert job["comparison"]["gate"]["passed"] is (state == "done")
    assert job["comparison"]["verdict"] == "worse"
    if state == "failed":
        assert job["error"]["code"] == "gate_failed"
        assert job["error"]["type"] == "conflict_error"


async def test_a_gate_brings_its_own_confidence(tmp_path: Path) -> None:
    write(tmp_path, "old", GAIN)
    write(tmp_path, "new", GAIN)
    async with distill(tmp_path) as client:
        asked = {"stage": "compare", "baseline": "old", "current": "new", "gate": "not worse at 90 %"}
        job = await done(client, **asked)
        assert job["comparison"]["confidence"] == 0.9
        error = await refused(client, **{**asked, "confidence": 0.95})
    assert error["param"] == "confidence"


async def test_what_makes_no_sense_is_refused_at_the_door(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        assert (await refused(client))["param"] == "current"
        assert (await refused(client, current="new", gate="good enough"))["param"] == "gate"
        assert (await refused(client, current="../../etc"))["param"] == "current"
        assert (await refused(client, current="new", confidence=1))["param"] == "confidence"
        assert (await refused(client, current="new", sample=3))["param"] == "sample"


async def test_replays_that_are_not_there_or_not_finished_fail_the_job(tmp_path: Path) -> None:
    write(tmp_path, "new", GAIN)
    (write(tmp_path, "half", GAIN) / "manifest.json").unlink()
    (write(tmp_path, "broken", GAIN) / "tasks.jsonl").write_bytes(b'{"schema":"stillhouse.replay"}\n')
    async with distill(tmp_path) as client:
        codes = {
            baseline: (await finished(client, stage="compare", baseline=baseline, current="new"))["error"][
                "code"
            ]
            for baseline in ("gone", "half", "broken")
        }
    assert codes == {"gone": "replay_not_found", "half": "replay_unfinished", "broken": "replay_unreadable"}


@pytest.mark.parametrize("path", ["0123456789abcdef/files/report.html", "0/files/report.html"])
async def test_a_report_that_is_not_there_is_not_found(tmp_path: Path, path: str) -> None:
    async with distill(tmp_path) as client:
        answer = await client.get(f"/v1/distill/comparisons/{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "comparison_not_found"


async def test_only_the_two_files_are_handed_out(tmp_path: Path) -> None:
    write(tmp_path, "old", GAIN)
    write(tmp_path, "new", GAIN)
    async with distill(tmp_path) as client:
        made = (await done(client, stage="compare", baseline="old", current="new"))["comparison"]
        folder = tmp_path / "comparisons" / made["comparison_id"]
        (folder / "other.txt").write_text("secret")
        for name in ("other.txt", "..%2F..%2Freplays%2Fold%2Ftasks.jsonl"):
            answer = await client.get(f"/v1/distill/comparisons/{made['comparison_id']}/files/{name}")
            assert answer.status_code == 404
    assert json.loads((folder / "comparison.json").read_bytes()) == made
