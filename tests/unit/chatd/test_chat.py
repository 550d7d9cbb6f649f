"""Chat completions through the door, with scripted models."""

from typing import Any

import httpx
import orjson
import pytest

from chatd.backends import Delta, Step, ToolCallDelta
from schemas.runs import Usage
from services.errors import NotFound, UpstreamError
from tests.unit.chatd.conftest import World

pytestmark = pytest.mark.anyio

ASK: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "n", "schema": {"type": "object", "required": ["a"]}, "strict": True},
}


async def post(
    client: httpx.AsyncClient, headers: dict[str, str] | None = None, **extra: Any
) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={**ASK, **extra}, headers=headers)


def events(response: httpx.Response) -> list[Any]:
    """The data of every event; each is one `data:` line and a blank line, nothing else."""
    assert response.content.endswith(b"\n\n")
    out: list[Any] = []
    for event in response.content[:-2].split(b"\n\n"):
        assert event.startswith(b"data: ")
        assert b"\n" not in event
        data = event.removeprefix(b"data: ")
        out.append("DONE" if data == b"[DONE]" else orjson.loads(data))
    return out


async def test_an_answer_and_its_record(world: World) -> None:
    provider = world.script(Step.saying("good day to you"))
    async with world.client() as client:
        response = await post(
            client, {"x-stillhouse-principal": "ada", "x-episode-id": "e-1"}, temperature=0.5, unheard_of=1
        )
    body = response.json()
    assert response.status_code == 200
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": "good day to you",
        "refusal": None,
    }
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    assert body["model"] == "fake"
    assert response.headers["x-episode-id"] == "e-1"
    (run,) = world.records()
    assert run.run_id == response.headers["x-run-id"]
    assert (run.principal, run.episode_id) == ("ada", "e-1")
    assert run.request.params == {"temperature": 0.5}
    assert run.request.messages == [{"role": "user", "content": "hello"}]
    assert run.output is not None
    assert run.output.content == "good day to you"
    assert (run.model.provider, run.model.name, run.model.digest) == ("ollama", "fake", "sha256:fake")
    assert [attempt.status for attempt in run.attempts] == ["ok"]
    assert len(run.config_hash or "") == 64
    assert provider.requests[0].model == "fake"


async def test_a_stream_keeps_the_chunk_rules(world: World) -> None:
    calls = (ToolCallDelta(0, "", id="call_a", name="f"), ToolCallDelta(1, "{}", id="call_b", name="g"))
    world.script(
        Step(
            [
                Delta(),
                Delta(content="a\u2028"),
                Delta(tool_calls=calls),
                Delta(tool_calls=(ToolCallDelta(0, '{"x":1}'),)),
                Delta(finish_reason="tool_calls", usage=Usage(prompt_tokens=3, completion_tokens=2)),
            ]
        )
    )
    async with world.client() as client:
        response = await post(client, stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, usage, done = events(response)
    assert done == "DONE"
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert all(chunk["usage"] is None for chunk in chunks)
    assert len({(one["id"], one["created"], one["model"], one["object"]) for one in [*chunks, usage]}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta.get("role") for delta in deltas] == ["assistant", None, None, None]
    assert deltas[0]["content"] == "a\u2028"
    assert deltas[1]["tool_calls"][1] == {
        "index": 1,
        "id": "call_b",
        "type": "function",
        "function": {"name": "g", "arguments": "{}"},
    }
    assert deltas[2]["tool_calls"] == [{"index": 0, "function": {"arguments": '{"x":1}'}}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "tool_calls"]
    (run,) = world.records()
    assert run.output is not None
    assert [call["function"] for call in run.output.tool_calls or ()] == [
        {"name": "f", "arguments": '{"x":1}'},
        {"name": "g", "arguments": "{}"},
    ]
    assert run.ttft_ms is not None


async def test_usage_is_metered_and_not_sent_unless_asked_for(world: World) -> None:
    world.script(Step.saying("one two"))
    async with world.client() as client:
        chunks = events(await post(client, stream=True))
        metrics = (await client.get("/metrics")).text
    assert all("usage" not in chunk for chunk in chunks[:-1])
    assert world.records()[0].usage.completion_tokens == 2
    assert 'chatd_tokens_total{direction="completion",provider="ollama"} 2.0' in metrics
    assert 'chatd_calls_total{outcome="ok",provider="ollama"} 1.0' in metrics


async def test_an_error_before_the_first_token_has_its_status(world: World) -> None:
    world.script(Step([Delta()], error=NotFound("gone", code="model_not_found")))
    async with world.client() as client:
        response = await post(client, stream=True)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    (run,) = world.records()
    assert run.run_id == response.headers["x-run-id"]
    assert (run.attempts[0].status, run.attempts[0].code, run.output) == ("failed", "model_not_found", None)
    assert run.usage.prompt_tokens is None


async def test_an_error_after_the_first_token_is_the_last_event(world: World) -> None:
    world.script(Step([Delta(content="half")], error=UpstreamError("broke")))
    async with world.client() as client:
        response = await post(client, stream=True)
    first, last = events(response)
    assert response.status_code == 200
    assert first["choices"][0]["finish_reason"] is None
    assert last["error"]["type"] == "upstream_error"
    assert last["error"]["request_id"] == response.headers["x-request-id"]
    (run,) = world.records()
    assert run.attempts[0].status == "failed"
    assert run.output is not None
    assert (run.output.content, run.output.finish_reason) == ("half", None)


async def test_a_stream_that_stops_without_an_end_is_an_error(world: World) -> None:
    world.script(Step([Delta(content="half")]), Step([Delta(content="half")]))
    async with world.client() as client:
        streamed = await post(client, stream=True)
        whole = await post(client)
    assert events(streamed)[-1]["error"]["code"] == "truncated"
    assert (whole.status_code, whole.json()["error"]["code"]) == (502, "truncated")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_silent_model_runs_into_the_clock(world: World, stream: bool) -> None:
    world.settings = {"first_token_timeout_s": 0.05, "total_timeout_s": 0.05}
    provider = world.script(Step(hang=True))
    async with world.client() as client:
        response = await post(client, stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "upstream_timeout")
    assert provider.cancelled == 1
    assert world.records()[0].attempts[0].code == "upstream_timeout"


async def test_a_stream_that_falls_silent_ends_in_an_error(world: World) -> None:
    world.settings = {"idle_timeout_s": 0.05}
    provider = world.script(Step([Delta(content="well"), Delta(), Delta()], hang=True))
    async with world.client() as client:
        response = await post(client, stream=True)
    assert events(response)[-1]["error"]["code"] == "upstream_timeout"
    assert provider.cancelled == 1


async def test_an_answer_is_held_to_its_schema(world: World) -> None:
    world.script(
        Step.saying('{"a":1}'),
        Step.saying('{"b":1}'),
        Step([Delta(content='{"a'), Delta(finish_reason="length")]),
        Step.saying('{"b":1}'),
    )
    async with world.client() as client:
        good = await post(client, response_format=SCHEMA)
        bad = await post(client, response_format=SCHEMA)
        cut = await post(client, response_format=SCHEMA)
        streamed = await post(client, response_format=SCHEMA, stream=True)
    assert good.status_code == 200
    assert (bad.status_code, bad.json()["error"]["code"]) == (502, "response_format_violated")
    assert (cut.status_code, cut.json()["choices"][0]["finish_reason"]) == (200, "length")
    assert events(streamed)[-1]["error"]["code"] == "response_format_violated"
    assert [run.attempts[0].status for run in world.records()] == ["ok", "failed", "ok", "failed"]
    assert world.records()[1].output is not None


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"temperature": 3}, "temperature"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, None),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 12}}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "http://x/y"}}}},
            "response_format.json_schema.schema",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"m": 2**60}}}]}, None),
    ],
)
async def test_a_bad_request_is_refused_without_a_run(
    world: World, change: dict[str, Any], param: str | None
) -> None:
    world.script()
    async with world.client() as client:
        response = await post(client, **change)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    if param is not None:
        assert response.json()["error"]["param"] == param
    assert "x-run-id" not in response.headers
    assert world.records() == []


async def test_nan_is_refused(world: World) -> None:
    world.script()
    async with world.client() as client:
        response = await client.post(
            "/v1/chat/completions",
            content=b'{"model":"fake","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
            headers={"content-type": "application/json"},
        )
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")


async def test_a_model_id_picks_the_provider(world: World) -> None:
    world.script(Step.saying("from ollama"))
    world.script(Step.saying("from elsewhere"), name="elsewhere", models=("org/big",))
    async with world.client() as client:
        bare = await post(client)
        other = await post(client, model="elsewhere/org/big")
        unknown = await post(client, model="nowhere/x")
        models = await client.get("/v1/models")
        one = await client.get("/v1/models/elsewhere%2Forg%2Fbig")
        none = await client.get("/v1/models/ollama/absent")
    assert bare.json()["choices"][0]["message"]["content"] == "from ollama"
    assert other.json()["choices"][0]["message"]["content"] == "from elsewhere"
    assert other.json()["model"] == "elsewhere/org/big"
    assert unknown.status_code == 404
    assert "`ollama/…`, `elsewhere/…`" in unknown.json()["error"]["message"]
    assert [card["id"] for card in models.json()["data"]] == ["ollama/fake", "elsewhere/org/big"]
    assert one.json()["id"] == "elsewhere/org/big"
    assert (none.status_code, none.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_malformed_episode_is_refused(world: World) -> None:
    world.script()
    async with world.client() as client:
        response = await post(client, {"x-episode-id": "not one"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "x-episode-id")


async def test_readiness_names_what_is_missing(world: World) -> None:
    world.script()
    world.distill.down = True
    async with world.client() as client:
        degraded = await client.get("/readyz")
        world.providers.clear()
    assert degraded.status_code == 200
    assert degraded.json()["status"] == "degraded"
    assert "distill" in degraded.json()["dependencies"]["distill"]["reason"]
