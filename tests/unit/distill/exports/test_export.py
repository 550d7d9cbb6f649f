import hashlib
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.unit.distill.builders import (
    Json,
    chain,
    distill,
    done,
    episode,
    finished,
    run,
    send,
    verdict,
)
from tests.unit.distill.exports.stories import (
    SPLITS,
    TOOL_CALL,
    exported,
    file_of,
    folder_of,
    left_out_of,
    lines_of,
    mixed,
    provenance_of,
    rows_of,
    unlike,
    various,
)

pytestmark = pytest.mark.anyio


async def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    leftover = tmp_path / "datasets" / ".export-abc"
    leftover.mkdir(parents=True)
    (leftover / "sft.jsonl").write_bytes(b"half")
    async with distill(tmp_path) as client:
        await send(client, mixed())
        await chain(client, "sft")
    assert not leftover.exists()


async def test_sft_holds_accepted_answers_to_the_original_prompt(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, mixed())
        job = await chain(client, "sft")
        rows = await rows_of(client, job)
        provenance = await provenance_of(client, job)
        left_out = await left_out_of(client, job)
        for split in SPLITS:
            raw = (await file_of(client, job, f"{split}.jsonl")).splitlines(keepends=True)
            beside = await lines_of(client, job, f"{split}.provenance.jsonl")
            for line, (row, one) in enumerate(zip(raw, beside, strict=True), start=1):
                digest = hashlib.sha256(row).hexdigest()
                assert (one["line"], one["line_sha256"], one["split"]) == (line, digest, split)
    assert job["counts"] == {"in": 8, "rows": 4, "drafts": 0, "quarantined": 4}
    assert all(set(row) == {"messages"} for row in rows)
    assert [message["role"] for message in rows[0]["messages"]] == ["user", "assistant"]
    assert {row["messages"][0]["content"] for row in rows} == {
        "fill o1",
        "fill o2",
        "question plain",
        "question later",
    }
    assert len(provenance) == len(rows)
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
        rows = await rows_of(client, job)
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
        left_out = await left_out_of(client, job)
    assert [one["reason"] for one in left_out] == [reason]


async def test_preference_pairs_the_repair_with_the_first_draft(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, mixed())
        job = await chain(client, "preference")
        rows = await rows_of(client, job)
        provenance = await provenance_of(client, job)
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
        (row,) = await rows_of(client, job)
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
        left_out = await left_out_of(client, job)
    assert job["counts"]["rows"] == 1
    assert reason in {one["reason"] for one in left_out}


async def test_rag_samples_carry_role_and_question(tmp_path: Path) -> None:
    text = {"collection": "c", "id": 1, "role": "forklift_operator", "text": "t", "text_sha256": "0" * 64}
    async with distill(tmp_path) as client:
        await send(client, [run("r1", verdict=verdict(), retrieved_context=[text])])
        job = await chain(client, "rag")
        (row,) = await rows_of(client, job)
    assert row["schema"] == "stillhouse.rag"
    assert (row["role"], row["query"], row["text"]) == ("forklift_operator", "question r1", "answer r1")


async def test_the_same_row_twice_is_exported_once(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        twins = [run(name, question="q", answer="a", verdict=verdict()) for name in ("r1", "r2")]
        await send(client, twins)
        job = await chain(client, "sft")
        (left_out,) = await left_out_of(client, job)
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
    assert list((tmp_path / "datasets").iterdir()) == []


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


# --- pairs ------------------------------------------------------------------------------------


async def say(client: httpx.AsyncClient, run_id: str, kind: str, value: Any) -> Json:
    body = {"run_id": run_id, "kind": kind, "value": value, "by": "ann"}
    response = await client.post("/v1/feedback", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def test_a_correction_is_preferred_to_what_it_corrects(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, [run("r1", answer='{"a": 1}', verdict=verdict())])
        said = await say(client, "r1", "demonstration", {"a": 2})
        job = await exported(client, [], kind="preference", target="trl")
        (row,) = await rows_of(client, job)
        (one,) = await provenance_of(client, job)
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ('{"a":2}', '{"a": 1}')
    assert (one["pair"], one["correction"]) == ("correction", said["feedback_id"])
    assert one["rejected"]["evidence_id"] == one["evidence_id"]
    assert one["margin"] == 1
    assert one["reasons"]


@pytest.mark.parametrize(
    ("shown", "chosen"),
    [
        ("as it should be", "as it should be"),
        ({"content": "as it should be"}, "as it should be"),
        ({"content": 5}, '{"content":5}'),
        ({"tool_calls": "x"}, '{"tool_calls":"x"}'),
        ([1], "[1]"),
        (0, "0"),
    ],
)
async def test_whatever_is_shown_is_an_output_or_what_the_answer_was_to_be(
    tmp_path: Path, shown: Any, chosen: str
) -> None:
    async with distill(tmp_path) as client:
        await send(client, [run("r1", answer="bad", verdict=verdict("rejected", "email.subject_missing"))])
        await say(client, "r1", "demonstration", shown)
        (row,) = await rows_of(client, await exported(client, [], kind="preference", target="trl"))
    assert row["chosen"][0]["content"] == chosen


async def test_two_answers_to_one_prompt_that_were_judged_apart_are_a_pair(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        answers = [
            run("good", question="q", answer="yes", verdict=verdict()),
            run("bad", question="q", answer="no", verdict=verdict("rejected", "fill.underage")),
            run("same", question="q", answer="yes", verdict=verdict("rejected", "fill.underage")),
            run("liked", question="p", answer="yes", verdict=verdict()),
            run("disliked", question="p", answer="no", verdict=verdict()),
            run("alone", question="r", answer="no", verdict=verdict("rejected", "fill.underage")),
        ]
        await send(client, answers)
        await say(client, "disliked", "boolean", False)
        job = await exported(client, [], kind="preference", target="axolotl")
        rows, provenance = await rows_of(client, job), await provenance_of(client, job)
        left_out = await left_out_of(client, job)
    assert job["counts"] == {"in": 6, "rows": 2, "drafts": 2, "quarantined": 2}
    assert [(row["chosen"]["content"], row["rejected"]["content"]) for row in rows] == [("yes", "no")] * 2
    assert {one["source"]["key"]: one["rejected"]["source"]["key"] for one in provenance} == {
        "good": "bad",
        "liked": "disliked",
    }
    assert all(one["pair"] == "feedback" and one["reasons"] for one in provenance)
    assert {one["source"]["key"] for one in left_out} == {"same", "alone"}


async def test_the_margin_asked_for_is_kept(tmp_path: Path) -> None:
    pair = episode("o1")
    pair[0]["verdict"] = verdict("partially_accepted", "fill.underage")
    async with distill(tmp_path) as client:
        job = await exported(client, pair, kind="preference")
        (one,) = await provenance_of(client, job)
        failed = await finished(client, stage="export", kind="preference", margin_min=1)
    assert one["margin"] == 0.5
    assert "1 × pair.margin" in failed["error"]["message"]


async def test_a_draft_serves_one_pair_alone(tmp_path: Path) -> None:
    draft, repair = episode("o1")
    again = {**repair, "run_id": "o1-3", "ts": "2026-11-02T11:00:00Z", "output": {"content": "better"}}
    async with distill(tmp_path) as client:
        job = await exported(client, [draft, repair, again], kind="preference")
        left_out = await left_out_of(client, job)
    assert job["counts"] == {"in": 3, "rows": 1, "drafts": 1, "quarantined": 1}
    assert left_out[0]["reason"] == "pair.draft_used"


# --- what may go in ---------------------------------------------------------------------------


async def test_partially_accepted_answers_go_in_when_asked_for(tmp_path: Path) -> None:
    records = [
        run("r1", verdict=verdict("partially_accepted", "fill.underage")),
        run("r2", verdict=verdict()),
    ]
    async with distill(tmp_path) as client:
        strict = await exported(client, records, kind="sft")
        loose = await done(client, stage="export", kind="sft", include_partial=True)
    assert (strict["counts"]["rows"], loose["counts"]["rows"]) == (1, 2)
    assert strict["dataset_id"] != loose["dataset_id"]


async def test_personal_data_never_leaves_in_any_file(tmp_path: Path) -> None:
    secret, card = "123-45-6789", "4111 1111 1111 1111"
    told = run(
        "r1", question=f"My SSN is {secret}, card {card}", answer=f"Noted {secret}.", verdict=verdict()
    )
    async with distill(tmp_path) as client:
        job = await exported(client, [told, *various(3)], kind="sft")
        held_back = await done(client, stage="export", kind="sft", pii={"ssn": "quarantine"})
        manifest = orjson_of(await file_of(client, job, "manifest.json"))
        texts = [row["messages"][-1]["content"] for row in await rows_of(client, job)]
        (left_out,) = await left_out_of(client, held_back)
        masked = {one["source"]["key"]: one["masked"] for one in await provenance_of(client, job)}
    assert "Noted [SSN_1]." in texts
    assert manifest["pii"] == {"card": 1, "ssn": 1}
    assert masked == {"r1": 2, "v0": 0, "v1": 0, "v2": 0}
    assert left_out["reason"] == "pii.ssn"
    for path in (tmp_path / "datasets").rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()
            assert card.encode() not in path.read_bytes()


# --- splits -----------------------------------------------------------------------------------


def order(number: int) -> list[Json]:
    made = unlike(number)
    other = {**unlike(number + 500), "run_id": f"w{number}"}
    made["task"] = other["task"] = {"kind": "fill", "key": f"order-{number}"}
    return [made, other]


async def splits_of(client: httpx.AsyncClient, job: Json) -> dict[str, str]:
    return {one["source"]["key"]: one["split"] for one in await provenance_of(client, job)}


async def test_splits_are_stable_while_data_grows_and_hold_orders_together(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        few = [one for number in range(40) for one in order(number)]
        first = await splits_of(client, await exported(client, few, kind="sft"))
        more = [one for number in range(40, 80) for one in order(number)]
        second = await splits_of(client, await exported(client, more, kind="sft"))
        other = await splits_of(client, await done(client, stage="export", kind="sft", salt="other"))
    assert len(first) == 80
    assert {key: second[key] for key in first} == first
    assert set(second.values()) == set(SPLITS)
    assert all(second[f"v{number}"] == second[f"w{number}"] for number in range(80))
    assert other != second


async def test_near_duplicates_stand_in_one_split_and_are_counted(tmp_path: Path) -> None:
    letter = "Dear worker, the shift at {} begins at {} and you are asked to bring boots and a vest"
    alike = [
        run(
            f"n{number}",
            question=letter.format(f"Place{number}", f"{number}:00"),
            answer="ok",
            verdict=verdict(),
        )
        for number in range(30)
    ]
    async with distill(tmp_path) as client:
        job = await exported(client, [*alike, *various(40)], kind="sft")
        provenance = await provenance_of(client, job)
    found = [one for one in provenance if one["source"]["key"].startswith("n")]
    assert len({(one["split"], one["group"]) for one in found}) == 1
    assert {one["duplicates"]["near"] for one in found} == {29}
    assert {one["duplicates"]["near"] for one in provenance if one not in found} == {0}


async def test_what_joins_a_group_of_the_holdout_is_left_out(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        first = [one for number in range(30) for one in order(number)]
        for one in first:
            one["ts"] = "2026-11-02T10:00:00Z"
        await exported(client, first, kind="sft")
        late = unlike(39)
        late |= {"ts": "2026-11-20T10:00:00Z", "task": {"kind": "fill", "key": "order-3"}}
        job = await exported(client, [late], kind="sft", holdout_days=7)
        split, left_out = await splits_of(client, job), await left_out_of(client, job)
        ids = next((tmp_path / "distill" / "holdout").iterdir())
        before = ids.read_bytes()
        later = await splits_of(client, await done(client, stage="export", kind="sft"))
    assert split["v39"] == later["v39"] == "holdout"
    assert "split.touches_holdout" in {one["reason"] for one in left_out}
    assert {one["source"]["key"] for one in left_out} <= {"v3", "w3"}
    assert ids.read_bytes() == before


# --- the folder -------------------------------------------------------------------------------


async def test_the_folder_is_complete_and_says_what_is_in_it(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        job = await exported(client, [*mixed(), *various(20)], kind="sft", target="llamafactory")
        manifest = orjson_of(await file_of(client, job, "manifest.json"))
        receipt = orjson_of(await file_of(client, job, "receipt.dsse.json"))
        info = orjson_of(await file_of(client, job, "dataset_info.json"))
        page = (await file_of(client, job, "report.html")).decode()
    names = {path.name for path in folder_of(tmp_path, job).iterdir()}
    assert names == {file["name"] for file in manifest["files"]} | {"manifest.json", "receipt.dsse.json"}
    for file in manifest["files"]:
        data = (folder_of(tmp_path, job) / file["name"]).read_bytes()
        assert (file["sha256"], file["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
        assert file["lines"] == data.count(b"\n")
    assert sum(manifest["splits"].values()) == manifest["counts"]["rows"]
    assert sum(manifest["reasons"].values()) == manifest["counts"]["quarantined"]
    assert receipt["payloadType"] == "application/vnd.in-toto+json"
    assert job["receipt"]["sequence"] >= 3
    assert {entry["file_name"] for entry in info.values()} == {f"{split}.jsonl" for split in SPLITS}
    assert page.count("<svg") >= 4
    assert "http" not in page
    for reason in manifest["reasons"]:
        assert reason in page


async def test_an_export_done_twice_is_one_folder(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        job = await exported(client, various(30), kind="sft")
        stat = {path.name: path.stat().st_mtime_ns for path in folder_of(tmp_path, job).iterdir()}
        again = await done(client, stage="export", kind="sft")
        assert again["dataset_id"] == job["dataset_id"]
        assert {path.name: path.stat().st_mtime_ns for path in folder_of(tmp_path, job).iterdir()} == stat
        (folder_of(tmp_path, job) / "train.jsonl").write_bytes(b"{}\n")
        damaged = await finished(client, stage="export", kind="sft")
    assert damaged["error"]["code"] == "dataset_damaged"


def orjson_of(data: bytes) -> Json:
    return dict(orjson.loads(data))
