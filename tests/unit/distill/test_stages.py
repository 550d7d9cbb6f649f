import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.unit.distill.builders import (
    Json,
    chain,
    distill,
    done,
    evidence,
    finished,
    run,
    send,
    stored,
    verdict,
    verdict_record,
)
from tests.unit.distill.exports import stories

pytestmark = pytest.mark.anyio

UNREPEATABLE = ("manifest.json", "receipt.dsse.json")  # they hold a key of the machine, and times


def products(data: Path) -> dict[str, bytes]:
    """All products: what is the same wherever, and however often, it is made."""
    kinds = ("distill/evidence", "distill/scored", "distill/quarantine", "datasets")
    return {
        str(path.relative_to(data)): path.read_bytes()
        for kind in kinds
        for path in (data / kind).rglob("*")
        if path.is_file() and path.name not in UNREPEATABLE
    }


def mixed() -> list[Json]:
    return [*stories.mixed(), verdict_record("nobody")]


async def test_the_same_log_gives_the_same_bytes(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    async with distill(here) as client:
        await send(client, mixed())
        for kind in ("sft", "preference", "rag"):
            await chain(client, kind)
        first = products(here)
        for kind in ("sft", "preference", "rag"):
            await chain(client, kind)
        assert products(here) == first
    shutil.copytree(here / "log", there / "log")
    async with distill(there) as client:
        for kind in ("sft", "preference", "rag"):
            await chain(client, kind)
    assert products(there) == first
    assert len([name for name in first if name.startswith("datasets") and name.endswith("train.jsonl")]) == 3


async def test_the_order_of_arrival_changes_offsets_and_nothing_else(tmp_path: Path) -> None:
    async def ids(name: str, records: list[Json]) -> list[tuple[str, str | None]]:
        async with distill(tmp_path / name) as client:
            await send(client, records)
            await done(client, stage="materialize")
        return [(one["evidence_id"], one["repair_of"]) for one in evidence(tmp_path / name)]

    assert await ids("a", mixed()) == await ids("b", list(reversed(mixed())))


async def test_of_two_logs_in_one_folder_the_same_run_wins_before_and_after_a_restart(tmp_path: Path) -> None:
    async with distill(tmp_path / "b", writer_id="b") as client:
        await send(client, [run("r1", answer="b")])
    async with distill(tmp_path / "a", writer_id="a", segment_bytes_max=4096) as client:
        for number in range(2, 20):
            await send(client, [run(f"r{number}")])
    log = tmp_path / "a" / "log"
    shutil.copy(tmp_path / "b" / "log" / "runs-b-000001.jsonl", log / "runs-b-000001.jsonl")
    (log / "runs-c-000001.jsonl").write_bytes(
        (log / "runs-b-000001.jsonl").read_bytes().replace(b'"b"', b'"c"')
    )
    async with distill(tmp_path / "a", writer_id="a", segment_bytes_max=4096) as client:
        await send(client, [run(f"s{number}") for number in range(20)])
        await done(client, stage="materialize")
        first = products(tmp_path / "a")
    async with distill(tmp_path / "a", writer_id="a") as client:
        job = await done(client, stage="materialize")
    assert products(tmp_path / "a") == first
    assert job["counts"]["quarantined"] == 1


async def test_every_line_of_the_log_ends_in_one_outcome(tmp_path: Path) -> None:
    async with distill(tmp_path / "other", writer_id="b") as client:
        await send(client, [run("plain", verdict=verdict()), run("unjudged", answer="other"), run("r9")])
    async with distill(tmp_path) as client:
        await send(client, [run(f"before-{number}") for number in range(16)])  # more than are looked at first
        await send(client, mixed())
    foreign = (tmp_path / "other" / "log" / "runs-b-000001.jsonl").read_bytes()
    copied = tmp_path / "log" / "runs-b-000001.jsonl"
    copied.write_bytes(
        b"".join(
            line.replace(b'"schema_version":"1.0"', b'"schema_version":"9.0"') if b'"r9"' in line else line
            for line in foreign.splitlines(keepends=True)
        )
        + b'{"schema":"stillhouse.unheard"}\n'
    )
    async with distill(tmp_path) as client:
        job = await done(client, stage="materialize")
        metrics = (await client.get("/metrics")).text
    assert job["counts"] == {
        "in": 31,
        "out": 24,
        "joined": 2,
        "unmatched": 1,
        "duplicates": 1,
        "quarantined": 3,
    }
    quarantined = stored(tmp_path, "quarantine")
    assert {one["reason"] for one in quarantined} == {"run_id_conflict", "schema_invalid", "unknown_schema"}
    assert 'distill_quarantined_total{stage="materialize"} 3.0' in metrics


async def test_evidence_points_to_the_very_bytes_of_the_log(tmp_path: Path) -> None:
    async with distill(tmp_path, segment_bytes_max=4096) as client:
        for number in range(20):
            await send(client, [run(f"r{number}")])
        await done(client, stage="materialize")
        for one in stored(tmp_path, "evidence"):
            source = one["source"]
            with (tmp_path / "log" / source["segment"]).open("rb") as file:
                file.seek(source["offset"])
                data = file.read(source["length"])
            assert hashlib.sha256(data).hexdigest() == source["line_sha256"]
            view = (await client.get(f"/v1/runs/{source['key']}")).json()
            assert view["evidence_id"] == one["evidence_id"]


async def test_the_latest_verdict_counts_and_a_repair_names_its_draft(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, mixed())
        await done(client, stage="materialize")
        await done(client, stage="score")
        by_key = {one["source"]["key"]: one for one in stored(tmp_path, "evidence")}
        assert by_key["later"]["verdict"]["verdict"] == "accepted"
        assert by_key["o1-2"]["repair_of"] == by_key["o1-1"]["evidence_id"]
        assert by_key["o1-1"]["repair_of"] is None
        assert (await client.get("/v1/runs/o1-1")).json()["category"] == "rejected"


async def test_a_retry_of_the_same_task_repairs_the_failed_one_before_it(tmp_path: Path) -> None:
    def attempt(number: int, name: str) -> Json:
        return run(
            f"t{number}",
            ts=f"2026-11-02T10:00:0{number}Z",
            episode_id="e",
            task={"kind": "email", "key": "k"},
            verdict=verdict(name),
        )

    async with distill(tmp_path) as client:
        other_task = {**attempt(4, "accepted"), "task": {"kind": "sms"}}
        await send(
            client, [attempt(2, "accepted"), attempt(1, "rejected"), attempt(3, "accepted"), other_task]
        )
        await done(client, stage="materialize")
    by_key = {one["source"]["key"]: one for one in stored(tmp_path, "evidence")}
    assert by_key["t2"]["repair_of"] == by_key["t1"]["evidence_id"]
    assert [by_key[key]["repair_of"] for key in ("t1", "t3", "t4")] == [None, None, None]


async def test_stages_ask_for_the_ones_before(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        for request in ({"stage": "score"}, {"stage": "export", "kind": "sft"}):
            job = await finished(client, **request)
            assert job["error"]["code"] == "stage_missing"
        await send(client, [run("r1", verdict=verdict())])
        await chain(client, "sft")
        await send(client, [run("r2", verdict=verdict())])
        await done(client, stage="materialize")
        new_run = await finished(client, stage="export", kind="sft")
        await done(client, stage="score")
        await send(client, [verdict_record("r2", "rejected", "fill.underage")])
        await done(client, stage="materialize")
        new_verdict = await finished(client, stage="export", kind="sft")
    assert new_run["error"]["code"] == new_verdict["error"]["code"] == "stage_stale"


@pytest.mark.parametrize(
    ("request_body", "param", "named"),
    [
        ({"stage": "train"}, "stage", "materialize"),
        ({"stage": "materialize", "source": "helicone"}, "source", "langfuse"),
        ({"stage": "export", "kind": "kto"}, "kind", "preference"),
        ({"stage": "export", "kind": "sft", "target": "axolotl"}, "target", "openai"),
        ({"stage": "export"}, "kind", "preference"),
        ({"stage": "score", "kind": "sft"}, "kind", "score"),
    ],
)
async def test_what_is_not_there_is_refused_with_what_is(
    tmp_path: Path, request_body: Json, param: str, named: str
) -> None:
    async with distill(tmp_path) as client:
        response = await client.post("/v1/distill/jobs", json=request_body)
        assert (await client.get("/v1/distill/jobs/none")).status_code == 404
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert named in error["message"]


async def test_one_job_runs_at_a_time_and_the_daemon_serves_meanwhile(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, [run(f"r{number}") for number in range(2000)])
        first = await client.post("/v1/distill/jobs", json={"stage": "materialize"})
        second = await client.post("/v1/distill/jobs", json={"stage": "score"})
        assert (second.status_code, second.json()["error"]["code"]) == (409, "job_running")
        path = f"/v1/distill/jobs/{first.json()['job_id']}"
        seen = set()
        while (job := (await client.get(path)).json())["state"] != "done":
            seen.add(job["state"])
            assert (await client.get("/healthz")).status_code == 200
    assert seen <= {"queued", "running"}
    assert seen


async def test_a_job_that_is_cut_short_leaves_no_product(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, [run(f"r{number}") for number in range(2000)])
        await client.post("/v1/distill/jobs", json={"stage": "materialize"})
    assert stored(tmp_path, "evidence") == []


async def test_lists_are_paged(tmp_path: Path) -> None:
    async with distill(tmp_path, page_scan_max=3) as client:
        await send(client, mixed())
        await chain(client, "sft")
        await chain(client, "rag")
        seen: list[str] = []
        query: dict[str, Any] = {"category": "accepted", "limit": 1}
        while True:
            page = (await client.get("/v1/distill/evidence", params=query)).json()
            assert len(page["evidence"]) <= 1
            seen += [one["evidence"]["source"]["key"] for one in page["evidence"]]
            if page["cursor"] is None:
                break
            query["cursor"] = page["cursor"]
        datasets = (await client.get("/v1/distill/datasets", params={"limit": 1})).json()
        params = {"limit": 1, "cursor": datasets["cursor"]}
        rest = (await client.get("/v1/distill/datasets", params=params)).json()
        assert (await client.get("/v1/distill/evidence", params={"limit": 5000})).status_code == 400
    assert sorted(seen) == ["later", "o1-2", "o2-2", "plain"]
    assert [one["kind"] for one in (*datasets["datasets"], *rest["datasets"])] == ["rag", "sft"]
