import hashlib
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.distill.builders import (
    Json,
    chain,
    distill,
    done,
    episode,
    evidence,
    finished,
    lines,
    run,
    send,
    stored,
    verdict,
    verdict_record,
)

pytestmark = pytest.mark.anyio

UNREPEATABLE = ("manifest.json", "receipt.dsse.json")  # they hold a key of the machine, and times
TOOL_CALL: Json = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


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
    return [
        *episode("o1"),
        *episode("o2", code="fill.role_mismatch"),
        run("plain", verdict=verdict()),
        run("unjudged"),
        run("silent", output=None),
        run("later"),
        verdict_record("later", "rejected", "fill.underage", ts="2026-11-02T10:00:01Z"),
        verdict_record("later", "accepted", ts="2026-11-02T10:00:02Z"),
        verdict_record("nobody"),
    ]


async def rows_of(client: httpx.AsyncClient, job: Json, name: str) -> list[Json]:
    response = await client.get(f"/v1/distill/datasets/{job['dataset_id']}/files/{name}")
    assert response.status_code == 200
    return [httpx.Response(200, content=line).json() for line in response.content.splitlines()]


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
    assert len([name for name in first if name.endswith("manifest.json")]) == 3


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


async def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    leftover = tmp_path / "datasets" / ".export-abc"
    leftover.mkdir(parents=True)
    (leftover / "sft.jsonl").write_bytes(b"half")
    async with distill(tmp_path) as client:
        await send(client, mixed())
        await chain(client, "sft")
    assert not leftover.exists()


async def test_every_line_of_the_log_ends_in_one_outcome(tmp_path: Path) -> None:
    async with distill(tmp_path / "other", writer_id="b") as client:
        await send(client, [run("plain", verdict=verdict()), run("unjudged", answer="other"), run("r9")])
    async with distill(tmp_path) as client:
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
        "in": 15,
        "out": 8,
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


async def test_sft_holds_accepted_answers_to_the_original_prompt(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, mixed())
        job = await chain(client, "sft")
        rows = await rows_of(client, job, "sft.jsonl")
        provenance = await rows_of(client, job, "sft.provenance.jsonl")
        left_out = await rows_of(client, job, "quarantine.jsonl")
        raw = (await client.get(f"/v1/distill/datasets/{job['dataset_id']}/files/sft.jsonl")).content
    assert job["counts"] == {"in": 8, "rows": 4, "drafts": 0, "quarantined": 4}
    assert all(set(row) == {"messages"} for row in rows)
    assert [message["role"] for message in rows[0]["messages"]] == ["user", "assistant"]
    assert {row["messages"][0]["content"] for row in rows} == {
        "fill o1",
        "fill o2",
        "question plain",
        "question later",
    }
    for line, (row, one) in enumerate(zip(raw.splitlines(keepends=True), provenance, strict=True), start=1):
        assert (one["line"], one["line_sha256"]) == (line, hashlib.sha256(row).hexdigest())
    assert sorted(one["reason"] for one in left_out) == [
        "category.needs_human_review",
        "category.rejected",
        "category.rejected",
        "category.rejected",
    ]


async def test_earlier_assistant_turns_are_not_trained_on(tmp_path: Path) -> None:
    talk = run("r1", verdict=verdict())
    talk["request"]["messages"] = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "refusal": None},
        {"role": "user", "content": "c"},
    ]
    async with distill(tmp_path) as client:
        await send(client, [talk])
        job = await chain(client, "sft")
        rows = await rows_of(client, job, "sft.jsonl")
    assert rows[0]["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "answer r1"},
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"role": "narrator", "content": "x"}, "target.role"),
        ({"role": "user", "content": "x", "mood": 1}, "target.message_key"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "target.content_not_text"),
    ],
)
async def test_what_the_target_cannot_take_is_left_out_by_name(
    tmp_path: Path, change: Json, reason: str
) -> None:
    odd = run("odd", verdict=verdict())
    odd["request"]["messages"].append(change)
    async with distill(tmp_path) as client:
        await send(client, [odd, run("fine", verdict=verdict())])
        job = await chain(client, "sft")
        left_out = await rows_of(client, job, "quarantine.jsonl")
    assert [one["reason"] for one in left_out] == [reason]


async def test_preference_pairs_the_repair_with_the_first_draft(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, mixed())
        job = await chain(client, "preference")
        rows = await rows_of(client, job, "preference.jsonl")
        provenance = await rows_of(client, job, "preference.provenance.jsonl")
    assert job["counts"] == {"in": 8, "rows": 2, "drafts": 2, "quarantined": 4}
    for row in rows:
        assert set(row) == {"input", "preferred_output", "non_preferred_output"}
        assert len(row["input"]["messages"]) == 1
        assert row["preferred_output"] == [{"role": "assistant", "content": "good"}]
        assert row["non_preferred_output"] == [{"role": "assistant", "content": "bad"}]
    assert sorted(one["reasons"][0] for one in provenance) == ["fill.role_mismatch", "fill.underage"]
    assert all(one["rejected"]["source"]["key"].endswith("-1") for one in provenance)


async def test_a_repair_may_also_extend_the_last_message_of_the_prompt(tmp_path: Path) -> None:
    draft, repair = episode("o1")
    repair["request"]["messages"] = [{"role": "user", "content": "fill o1\n\nmend fill.underage"}]
    async with distill(tmp_path) as client:
        await send(client, [draft, repair])
        job = await chain(client, "preference")
        (row,) = await rows_of(client, job, "preference.jsonl")
    assert row["input"]["messages"] == [{"role": "user", "content": "fill o1"}]


def other_prompt(pair: list[Json]) -> None:
    pair[1]["request"]["messages"] = [{"role": "user", "content": "something else"}]


def same_value(pair: list[Json]) -> None:
    pair[0]["output"]["content"], pair[1]["output"]["content"] = '{"a":1,"b":2}', ' {"b": 2, "a": 1.0}'


def no_codes(pair: list[Json]) -> None:
    pair[0]["verdict"]["findings"] = []


def unsure(pair: list[Json]) -> None:
    pair[0]["verdict"] = verdict("needs_human_review")


def calls_a_tool(pair: list[Json]) -> None:
    pair[0]["output"]["tool_calls"] = [TOOL_CALL]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_prompt, "input.differs"),
        (same_value, "pair.same_output"),
        (no_codes, "pair.no_reason"),
        (unsure, "pair.draft_not_rejected"),
        (calls_a_tool, "target.text_only"),
    ],
)
async def test_a_pair_that_teaches_nothing_is_left_out_by_name(
    tmp_path: Path, change: Any, reason: str
) -> None:
    pair = episode("odd")
    change(pair)
    async with distill(tmp_path) as client:
        await send(client, [*pair, *episode("fine")])
        job = await chain(client, "preference")
        left_out = await rows_of(client, job, "quarantine.jsonl")
    assert job["counts"]["rows"] == 1
    assert reason in {one["reason"] for one in left_out}


async def test_rag_samples_carry_role_and_question(tmp_path: Path) -> None:
    text = {"collection": "c", "id": 1, "role": "forklift_operator", "text": "t", "text_sha256": "0" * 64}
    async with distill(tmp_path) as client:
        await send(client, [run("r1", verdict=verdict(), retrieved_context=[text])])
        job = await chain(client, "rag")
        (row,) = await rows_of(client, job, "rag.jsonl")
    assert row["schema"] == "stillhouse.rag"
    assert (row["role"], row["query"], row["text"]) == ("forklift_operator", "question r1", "answer r1")


async def test_the_same_row_twice_is_exported_once(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        twins = [run(name, question="q", answer="a", verdict=verdict()) for name in ("r1", "r2")]
        await send(client, twins)
        job = await chain(client, "sft")
        (left_out,) = await rows_of(client, job, "quarantine.jsonl")
    assert left_out["reason"] == "row.duplicate"


async def test_a_dataset_of_nothing_is_a_failure(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, [run("r1")])
        await done(client, stage="materialize")
        await done(client, stage="score")
        job = await finished(client, stage="export", kind="sft")
        assert (await client.get("/v1/distill/datasets")).json() == {"datasets": [], "cursor": None}
    assert job["state"] == "failed"
    assert job["error"]["code"] == "nothing_to_export"
    assert "1 × category.needs_human_review" in job["error"]["message"]
    assert sorted(path.name for path in (tmp_path / "datasets").iterdir()) == [
        "evidence.jsonl",
        "quarantine.jsonl",
        "scored.jsonl",
    ]


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
        ({"stage": "replay"}, "stage", "materialize"),
        ({"stage": "materialize", "source": "langfuse"}, "source", "stillhouse"),
        ({"stage": "export", "kind": "kto"}, "kind", "preference"),
        ({"stage": "export", "kind": "sft", "target": "trl"}, "target", "openai"),
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
    assert list((tmp_path / "datasets").iterdir()) == []


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


@pytest.mark.parametrize(
    "path",
    [
        "{id}/files/..%2F..%2Fevidence.jsonl",
        "{id}/files/%2E%2E%2Fevidence.jsonl",
        "{id}/files/nothing.jsonl",
        "..%2Flog/files/runs-000001.jsonl",
        "%2E%2E/files/manifest.json",
        "sft-openai-0000000000000000/files/manifest.json",
    ],
)
async def test_only_what_a_manifest_names_is_served(tmp_path: Path, path: str) -> None:
    async with distill(tmp_path) as client:
        await send(client, mixed())
        job = await chain(client, "sft")
        folder = f"/v1/distill/datasets/{job['dataset_id']}/files"
        assert (await client.get(f"{folder}/manifest.json")).json()["dataset_id"] == job["dataset_id"]
        response = await client.get("/v1/distill/datasets/" + path.format(id=job["dataset_id"]))
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "not_found_error"
