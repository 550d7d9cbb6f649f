from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.unit.distill.builders import distill, lines, ndjson, run, send, verdict_record

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}


def log_of(data: Path) -> list[dict[str, Any]]:
    return [record for path in sorted((data / "log").glob("*.jsonl")) for record in lines(path)]


def error_of(response: httpx.Response) -> dict[str, Any]:
    return dict(response.json()["error"])


async def test_a_record_is_on_disk_when_it_is_acknowledged(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        response = await client.post("/v1/runs", json=run("r1"))
        assert response.json() == {"accepted": 1, "rejected": [], "durability": "fsync"}
        assert [record["run_id"] for record in log_of(tmp_path)] == ["r1"]


async def test_bad_lines_are_named_and_the_others_are_kept(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        body = (
            ndjson([run("r1")]) + b"not json\n\n[1]\n" + ndjson([{"schema": "stillhouse.nothing"}, run("r2")])
        )
        answer = (await client.post("/v1/runs", content=body)).json()
    assert answer["accepted"] == 2
    assert [(one["line"], one["code"]) for one in answer["rejected"]] == [
        (2, "invalid_json"),
        (4, "invalid_json"),
        (5, "unknown_schema"),
    ]
    assert [record["run_id"] for record in log_of(tmp_path)] == ["r1", "r2"]


async def test_a_record_sent_again_is_accepted_and_written_once(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, [run("r1")])
        shuffled = dict(reversed(run("r1").items()))
        assert (await send(client, [shuffled, run("r1")]))["accepted"] == 2
        assert (await client.post("/v1/runs", json=run("r1"))).status_code == 200
        assert (await send(client, [verdict_record("r1"), verdict_record("r1")]))["accepted"] == 2
    assert [record["schema"] for record in log_of(tmp_path)] == ["stillhouse.run", "stillhouse.verdict"]


async def test_a_known_id_with_other_content_is_refused(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        answer = await send(client, [run("r1"), run("r1", answer="other")])
        assert [(one["line"], one["code"]) for one in answer["rejected"]] == [(2, "run_id_conflict")]
        response = await client.post("/v1/runs", json=run("r1", answer="third"))
        assert (response.status_code, error_of(response)["code"]) == (409, "run_id_conflict")
    assert len(log_of(tmp_path)) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"[]", "invalid_json"),
        (orjson.dumps(run("r1")).replace(b'"ollama"', b'"ollama", "digest": NaN'), "invalid_json"),
        (orjson.dumps(run("r1", ext={"n": 2**53})), "number_out_of_range"),
        (orjson.dumps(run("r1", usage={"prompt_tokens": 2**53})), "number_out_of_range"),
        (
            orjson.dumps(run("r1", ext={"n": 0})).replace(b'"n":0', b'"n":123456789012345678901234567890'),
            "number_out_of_range",
        ),
        (orjson.dumps(run("r1", ext={"n": orjson.Fragment(b"[" * 300 + b"]" * 300)})), "too_deep"),
        (orjson.dumps(run("r1", colour="red")), "unknown_field"),
        (orjson.dumps(run("r 1")), "schema_invalid"),
        (orjson.dumps(run("r1", schema_version="2.0")), "schema_invalid"),
        (orjson.dumps(run("r1", schema="stillhouse.feedback")), "unknown_schema"),
        # What the published JSON Schema refuses is refused here too, though Python could make sense of it.
        (orjson.dumps(run("r1", ts=1795344763)), "schema_invalid"),
        (orjson.dumps(run("r1", ts="1795344763")), "schema_invalid"),
        (orjson.dumps(run("r1", ts="2026-11-22 10:00:00Z")), "schema_invalid"),
        (orjson.dumps(run("r1", latency_ms="5")), "schema_invalid"),
        (orjson.dumps(run("r1", latency_ms=True)), "schema_invalid"),
        (orjson.dumps(run("r1", usage={"prompt_tokens": "1"})), "schema_invalid"),
    ],
)
async def test_what_cannot_be_kept_is_refused_with_a_code(tmp_path: Path, body: bytes, code: str) -> None:
    async with distill(tmp_path) as client:
        response = await client.post("/v1/runs", content=body, headers=JSON)
        assert (response.status_code, error_of(response)["code"]) == (400, code)
    assert log_of(tmp_path) == []


async def test_another_major_is_refused_by_name(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        response = await client.post("/v1/runs", json=run("r1", schema_version="2.0"))
    message = "stillhouse.run 2.0 cannot be read here; this reader knows 1.0"
    assert error_of(response)["message"] == message


async def test_long_digits_in_texts_and_fractions_are_no_integers(tmp_path: Path) -> None:
    record = run("r1", answer="card 12345678901234567890", ext={"n": 0.12345678901234568})
    async with distill(tmp_path) as client:
        assert (await client.post("/v1/runs", json=record)).status_code == 200


async def test_fields_of_a_newer_minor_are_kept(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, [run("r1", schema_version="1.7", mood="calm")])
        view = (await client.get("/v1/runs/r1")).json()
    assert log_of(tmp_path)[0]["mood"] == "calm"
    assert view["run"]["ext"] == {"mood": "calm"}


async def test_the_key_of_the_caller_is_the_principal_unless_the_record_names_one(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        headers = {"x-stillhouse-principal": "agency"}
        await client.post("/v1/runs", json=run("r1"), headers=headers)
        await client.post("/v1/runs", json=run("r2", principal="other"), headers=headers)
    assert [record["principal"] for record in log_of(tmp_path)] == ["agency", "other"]


async def test_requests_are_bounded(tmp_path: Path) -> None:
    async with distill(tmp_path, lines_max=2, body_bytes_max=4096) as client:
        response = await client.post("/v1/runs", content=b"{}\n{}\n{}\n")
        assert (response.status_code, error_of(response)["code"]) == (400, "too_many_lines")
        assert (await client.post("/v1/runs", content=b" " * 5000)).status_code == 413


async def test_a_run_is_shown_with_what_was_said_of_it(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, [run("r1", episode_id="e1"), verdict_record("r1")])
        about_run = {"run_id": "r1", "kind": "boolean", "value": True, "by": "ann"}
        about_episode = {"episode_id": "e1", "kind": "comment", "value": "fine", "by": "bob"}
        for body in (about_run, about_episode):
            assert (await client.post("/v1/feedback", json=body)).status_code == 200
        view = (await client.get("/v1/runs/r1")).json()
        assert (await client.get("/v1/runs/r2")).status_code == 404
    assert view["verdicts"][0]["verdict"]["verdict"] == "accepted"
    assert [one["by"] for one in view["feedback"]] == ["ann", "bob"]
    assert len(view["evidence_id"]) == 64
    assert view["category"] is None


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"value": 1}, "value"),
        ({"kind": "float", "value": True}, "value"),
        ({"kind": "comment", "value": " "}, "value"),
        ({"kind": "demonstration", "value": None}, "value"),
        ({"kind": "stars"}, "kind"),
        ({"episode_id": "e1"}, "run_id"),
        ({"run_id": None}, "run_id"),
        ({"by": ""}, "by"),
        ({"mood": 1}, "mood"),
    ],
)
async def test_feedback_that_says_nothing_clear_is_refused(
    tmp_path: Path, change: dict[str, Any], param: str
) -> None:
    body = {"run_id": "r1", "kind": "boolean", "value": True, "by": "ann", **change}
    async with distill(tmp_path) as client:
        response = await client.post("/v1/feedback", json=body)
    assert response.status_code == 400
    assert error_of(response)["param"] == param


async def test_feedback_nests_no_deeper_than_a_record(tmp_path: Path) -> None:
    deep = orjson.Fragment(b"[" * 150 + b"]" * 150)
    body = orjson.dumps({"run_id": "r1", "kind": "demonstration", "value": deep, "by": "ann"})
    async with distill(tmp_path) as client:
        response = await client.post("/v1/feedback", content=body, headers=JSON)
    assert (response.status_code, error_of(response)["code"]) == (400, "too_deep")


async def test_a_refusal_does_not_repeat_a_long_value(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        response = await client.post("/v1/runs", json=run("r1", schema_version="x" * 100_000))
    assert response.status_code == 400
    assert len(response.content) < 1000


async def test_a_large_record_is_kept_like_a_small_one(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        assert (await client.post("/v1/runs", json=run("r1", answer="x" * 200_000))).status_code == 200
        assert (await send(client, [run("r1", answer="x" * 200_000)]))["accepted"] == 1
        view = (await client.get("/v1/runs/r1")).json()
    assert len(view["run"]["output"]["content"]) == 200_000
    assert len(log_of(tmp_path)) == 1


async def test_one_run_collects_a_bounded_number_of_notes(tmp_path: Path) -> None:
    async with distill(tmp_path, notes_max=1) as client:
        body = {"run_id": "r1", "kind": "boolean", "value": True, "by": "ann"}
        assert (await client.post("/v1/feedback", json=body)).status_code == 200
        response = await client.post("/v1/feedback", json=body)
    assert (response.status_code, error_of(response)["code"]) == (409, "notes_full")


async def test_the_openapi_reference_of_the_body_exists(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        openapi = (await client.get("/openapi.json")).json()
    assert "Run" in openapi["components"]["schemas"]
