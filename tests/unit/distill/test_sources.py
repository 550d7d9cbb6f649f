import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.engine.sources import READERS, Turn, Unreadable
from schemas.evidence import Evidence
from tests.unit.distill.builders import Json, distill, done, finished, run, stored

CHAT: list[Json] = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]
ANSWER: Json = {"role": "assistant", "content": "because"}
COMPLETION: Json = {
    "id": "chatcmpl-1",
    "model": "gpt-x-2026",
    "created": 1767600000,
    "choices": [{"index": 0, "message": ANSWER, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
}
LITELLM: Json = {
    "id": "call-1",
    "trace_id": "trace-1",
    "call_type": "acompletion",
    "status": "success",
    "custom_llm_provider": "openai",
    "model": "gpt-x",
    "messages": CHAT,
    "response": COMPLETION,
    "model_parameters": {"temperature": 0.5, "tools": [{"type": "function"}], "user": "u"},
    "prompt_tokens": 9,
    "completion_tokens": 1,
    "response_cost": 0.25,
    "startTime": 1767600000.5,
}
LANGFUSE: Json = {
    "id": "obs-1",
    "type": "GENERATION",
    "traceId": "trace-1",
    "name": "answer",
    "startTime": "2026-01-05T08:00:00.500Z",
    "model": "gpt-x",
    "modelParameters": {"temperature": 0.5},
    "input": CHAT,
    "output": ANSWER,
    "usageDetails": {"input": 9, "output": 1},
    "costDetails": {"total": 0.25},
}
TENSORZERO: Json = {
    "id": "019b8ce1-f400-7000-8000-000000000001",
    "function_name": "answer",
    "variant_name": "small",
    "episode_id": "019b8ce1-f400-7000-8000-000000000000",
    "input": orjson.dumps(
        {"system": "be brief", "messages": [{"role": "user", "content": [{"type": "text", "text": "why?"}]}]}
    ).decode(),
    "output": orjson.dumps([{"type": "text", "text": "because"}]).decode(),
    "tool_params": "",
    "inference_params": '{"chat_completion":{"temperature":0.5}}',
}
ROWS: dict[str, list[Json]] = {
    "openai": [
        {"messages": [*CHAT, ANSWER]},
        {"request": {"model": "gpt-x", "messages": CHAT}, "response": COMPLETION},
        {"custom_id": "a", "body": {"messages": CHAT}, "response": {"status_code": 200, "body": COMPLETION}},
        {"messages": CHAT, **COMPLETION},
    ],
    "litellm": [LITELLM, {**LITELLM, "response": "because"}, {**LITELLM, "messages": "why?"}],
    "langfuse": [
        LANGFUSE,
        {**LANGFUSE, "input": {"messages": CHAT}, "output": COMPLETION},
        {**LANGFUSE, "input": orjson.dumps(CHAT).decode(), "output": "because"},
    ],
    "tensorzero": [TENSORZERO],
}


def turn(kind: str, row: Json) -> Turn:
    read = READERS[kind](row)
    assert isinstance(read, Turn)
    return read


@pytest.mark.parametrize(("kind", "row"), [(kind, row) for kind, rows in ROWS.items() for row in rows])
def test_a_call_is_read_whoever_recorded_it(kind: str, row: Json) -> None:
    read = turn(kind, row)
    assert read.messages[-1] == {"role": "user", "content": "why?"}
    assert read.output is not None
    assert read.output["content"] == "because"


@pytest.mark.parametrize("kind", ["litellm", "langfuse"])
def test_what_other_systems_know_of_a_call_is_kept(kind: str) -> None:
    read = turn(kind, ROWS[kind][0])
    assert read.usage == {"prompt_tokens": 9, "completion_tokens": 1, "cost_usd": 0.25}
    assert (read.ts, read.episode_id) == ("2026-01-05T08:00:00.500000Z", "trace-1")
    assert (read.params, read.model["name"]) == ({"temperature": 0.5}, "gpt-x")


def test_a_row_of_tensorzero_has_its_time_in_its_id() -> None:
    read = turn("tensorzero", TENSORZERO)
    assert read.ts == "2026-01-05T06:39:36.960000Z"
    assert (read.task, read.params) == ({"kind": "answer", "key": None}, {"temperature": 0.5})


def test_tool_calls_and_results_become_chat_messages() -> None:
    call = {"type": "tool_call", "id": "c1", "name": "f", "arguments": '{"a":1}'}
    result = {"type": "tool_result", "id": "c1", "name": "f", "result": "4"}
    turns = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    read = turn("tensorzero", {**TENSORZERO, "input": {"messages": turns}, "output": [call]})
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]
    assert read.messages == [
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "4"},
    ]
    assert read.output == {"content": None, "tool_calls": calls, "finish_reason": None}


@pytest.mark.parametrize(
    ("kind", "row", "code"),
    [
        ("openai", {"messages": CHAT}, "record.no_answer"),
        ("openai", {"prompt": "x"}, "record.no_messages"),
        ("openai", {"messages": [{"content": "x"}]}, "record.message_invalid"),
        ("litellm", {**LITELLM, "call_type": "aembedding"}, "record.not_chat"),
        ("litellm", {**LITELLM, "id": None}, "record.no_id"),
        (
            "litellm",
            {**LITELLM, "messages": [{"role": "user", "content": "redacted-by-litellm"}]},
            "record.redacted",
        ),
        ("langfuse", {**LANGFUSE, "type": "SPAN"}, "record.not_generation"),
        ("langfuse", {**LANGFUSE, "output": 7}, "record.no_answer"),
        ("tensorzero", {**TENSORZERO, "input": "{}"}, "record.no_messages"),
        ("tensorzero", {**TENSORZERO, "output": '[{"type":"image"}]'}, "record.content_unknown"),
        ("stillhouse", {"schema": "stillhouse.nothing"}, "unknown_schema"),
    ],
)
def test_what_is_no_call_is_refused_by_name(kind: str, row: Json, code: str) -> None:
    with pytest.raises(Unreadable) as refused:
        READERS[kind](row)
    assert refused.value.code == code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["role", "content", "type"]), inner)
    ),
    max_leaves=5,
)


@pytest.mark.parametrize(("count", "told"), [(9.0, 9), (2**53 - 1, 2**53 - 1), (1e300, None), (-1, None)])
def test_a_count_is_one_that_every_reader_holds(count: float, told: int | None) -> None:
    read = READERS["litellm"]({**LITELLM, "completion_tokens": count})
    assert isinstance(read, Turn)
    assert read.usage is not None
    assert read.usage["completion_tokens"] == told


@settings(max_examples=150)
@given(st.sampled_from([(kind, row) for kind, rows in ROWS.items() for row in rows]), st.data())
def test_no_row_is_too_odd_to_be_read_or_refused(given_row: tuple[str, Json], data: st.DataObject) -> None:
    kind, row = given_row
    name = data.draw(st.sampled_from(sorted(row)))
    try:
        read = READERS[kind]({**row, name: data.draw(JSON)})
    except Unreadable:
        return
    assert isinstance(read, Turn)


def imported(data: Path, kind: str, lines: list[bytes]) -> None:
    folder = data / "imports" / kind
    folder.mkdir(parents=True)
    (folder / "export.jsonl").write_bytes(b"".join(lines))


def materialized(data: Path, **options: Any) -> Json:
    async def story() -> Json:
        async with distill(data, **options) as client:
            return await finished(client, stage="materialize")

    return asyncio.run(story())


@pytest.mark.parametrize("kind", sorted(ROWS))
def test_an_imported_file_becomes_evidence_that_points_into_it(tmp_path: Path, kind: str) -> None:
    lines = [orjson.dumps(row) + b"\n" for row in ROWS[kind]]
    imported(tmp_path, kind, [*lines, lines[0]])
    counts = materialized(tmp_path)["counts"]
    keys = {turn(kind, row).key for row in ROWS[kind]}
    assert counts["in"] == len(lines) + 1
    assert counts["out"] == len(keys)
    assert counts["duplicates"] + counts["quarantined"] == len(lines) + 1 - len(keys)
    for one in stored(tmp_path, "evidence"):
        source = Evidence.model_validate(one).source
        assert source.kind == kind
        content = (tmp_path / "imports" / source.segment).read_bytes()
        row = orjson.loads(content[source.offset : source.offset + source.length])
        assert turn(kind, row).key == source.key
    assert sum(one["duplicates"] for one in stored(tmp_path, "evidence")) == counts["duplicates"]


def test_every_odd_line_is_set_aside_with_place_and_reason(tmp_path: Path) -> None:
    good = [orjson.dumps({"id": str(number), "messages": [*CHAT, ANSWER]}) + b"\n" for number in range(16)]
    deep = b'{"id":"deep","messages":' + b"[" * 100 + b"]" * 100 + b"}\n"
    odd = {
        b"not json\n": "line.invalid_json",
        b"\xff\xfe\n": "line.invalid_json",
        b"[1]\n": "line.not_an_object",
        b'{"messages":[NaN]}\n': "line.invalid_json",
        b'{"messages":[9007199254740993]}\n': "line.number_out_of_range",
        deep: "line.too_deep",
        b'{"pad":"%b"}\n' % (b"x" * 5000): "line.too_long",
        b'{"messages":[{"role":"user","content":"x"}]}\n': "record.no_answer",
        b'{"messages":[{"ro': "line.torn",
    }
    imported(tmp_path, "openai", [*good, *odd])
    job = materialized(tmp_path, line_bytes_max=4096)
    content = (tmp_path / "imports" / "openai" / "export.jsonl").read_bytes()
    found = {
        content[one["source"]["offset"] :][: one["source"]["length"]]: one["reason"]
        for one in stored(tmp_path, "quarantine")
    }
    assert found == odd
    assert job["counts"] == {
        "in": 16 + len(odd),
        "out": 16,
        "joined": 0,
        "unmatched": 0,
        "duplicates": 0,
        "quarantined": len(odd),
    }


def test_a_file_of_another_kind_is_stopped_at_its_first_records(tmp_path: Path) -> None:
    imported(tmp_path, "litellm", [orjson.dumps({"messages": [*CHAT, ANSWER]}) + b"\n"] * 20)
    job = materialized(tmp_path)
    assert (job["state"], job["error"]["code"]) == ("failed", "smoke_gate")
    assert "16 of the first 16 records of the source `litellm`" in job["error"]["message"]
    assert stored(tmp_path, "evidence") == stored(tmp_path, "quarantine") == []


def test_a_run_that_accepts_nothing_fails(tmp_path: Path) -> None:
    imported(tmp_path, "openai", [b"nothing\n"])
    assert materialized(tmp_path)["error"]["code"] == "nothing_accepted"
    assert stored(tmp_path, "evidence") == stored(tmp_path, "quarantine") == []  # no receipt vouches for any


def test_a_run_that_accepts_nothing_leaves_what_there_was(tmp_path: Path) -> None:
    imported(tmp_path, "openai", [orjson.dumps(ROWS["openai"][0]) + b"\n"])
    assert materialized(tmp_path)["state"] == "done"
    before = stored(tmp_path, "evidence")
    assert before
    (tmp_path / "imports" / "openai" / "export.jsonl").write_bytes(b"nothing\n")
    assert materialized(tmp_path)["error"]["code"] == "nothing_accepted"
    assert (stored(tmp_path, "evidence"), stored(tmp_path, "quarantine")) == (before, [])


def test_one_source_is_read_and_the_others_stay_as_they_were(tmp_path: Path) -> None:
    async def story() -> tuple[Json, Json]:
        async with distill(tmp_path) as client:
            await client.post("/v1/runs", json=run("r1"))
            imported(tmp_path, "openai", [orjson.dumps(ROWS["openai"][0]) + b"\n"])
            first = await done(client, stage="materialize", source="openai")
            await client.post("/v1/runs", json=run("r2"))
            await done(client, stage="materialize", source="stillhouse")
            (tmp_path / "imports" / "langfuse").mkdir()
            (tmp_path / "imports" / "langfuse" / "a.jsonl").write_bytes(orjson.dumps(LANGFUSE))
            return first, await done(client, stage="materialize", source="langfuse")

    first, last = asyncio.run(story())
    assert first["counts"]["out"] == 1
    assert last["counts"]["out"] == 4
    assert sorted(one["source"]["kind"] for one in stored(tmp_path, "evidence")) == [
        "langfuse",
        "openai",
        "stillhouse",
        "stillhouse",
    ]
