"""The chat gate: with `validate`, nothing leaves that its verdict does not let go."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatd.backends import Delta, FakeProvider, Step, ToolCallDelta
from schemas.chat import JsonSchemaFormat
from schemas.runs import Usage
from services.errors import UpstreamError
from tests.unit.chatd.conftest import World
from tests.unit.chatd.test_chat import events

anyio = pytest.mark.anyio

USAGE = Usage(prompt_tokens=7, completion_tokens=3)
ORDER = {"order": {"order_id": "O-1"}}
ASK: dict[str, Any] = {
    "model": "fake",
    "messages": [{"role": "user", "content": "fill order O-1"}],
    "validate": {"kind": "fill", "context": ORDER},
}
TOOLS = [{"type": "function", "function": {"name": "propose", "parameters": {"type": "object"}}}]


def finding(code: str = "fill.worker_unknown", severity: str = "error", **extra: Any) -> dict[str, Any]:
    return {"code": code, "severity": severity, "path": "/a", "message": "SECRET message", **extra}


def only_ones(artifact: Any) -> list[dict[str, Any]]:
    """`{"a": 1}` is right; 2 is for a person to look at; everything else is wrong."""
    value = artifact.get("a") if isinstance(artifact, dict) else None
    if value == 1:
        return []
    if value == 2:
        return [finding("content.discriminatory", "review")]
    return [finding(fix={"op": "replace", "path": "/a", "value": 1}), finding("fill.count_short")]


async def post(
    client: httpx.AsyncClient, headers: dict[str, str] | None = None, **extra: Any
) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={**ASK, **extra}, headers=headers)


def put_together(response: httpx.Response) -> dict[str, Any]:
    """What a client makes of a stream: the message, and what else an answer in one piece has."""
    *chunks, done = events(response)
    assert done == "DONE"
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    calls: list[dict[str, Any]] = []
    finish: list[str] = []
    usage = None
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            delta = choice["delta"]
            for name in ("content", "refusal"):
                if delta.get(name):
                    message[name] = (message[name] or "") + delta[name]
            pieces = delta.get("tool_calls", ())
            calls += [{key: value for key, value in piece.items() if key != "index"} for piece in pieces]
            finish += [choice["finish_reason"]] if choice["finish_reason"] else []
    if calls:
        message["tool_calls"] = calls
    (reason,) = finish
    return {"message": message, "finish_reason": reason, "usage": usage}


def put_apart(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    (choice,) = body["choices"]
    return {
        "message": choice["message"],
        "finish_reason": choice["finish_reason"],
        "usage": body.get("usage"),
    }


def sent(response: httpx.Response) -> bytes:
    """Every byte that left, head included."""
    return b"\n".join([*(b": ".join(pair) for pair in response.headers.raw), response.content])


@pytest.fixture
def gated(world: World) -> World:
    world.validators.judge = only_ones
    return world


# --- what leaves ------------------------------------------------------------------------------


@anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_an_accepted_answer_leaves_as_it_was_judged(gated: World, stream: bool) -> None:
    thinking = Delta(reasoning="perhaps 3?")
    said = Delta(content='Sure, "as you like":\n```json\n{"a": 1,}\n``` and {"a": 3}')
    provider = gated.script(Step([thinking, said, Delta(finish_reason="stop", usage=USAGE)]))
    async with gated.client() as client:
        response = await post(client, stream=stream, stream_options={"include_usage": True})
    answer = put_together(response) if stream else put_apart(response)
    assert answer == {
        "message": {"role": "assistant", "content": '{"a":1}', "refusal": None},
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    assert response.headers["x-verdict"] == "accepted"
    assert response.headers["x-policy-version"] == "1"
    assert "x-verdict-codes" not in response.headers
    (run,) = gated.records()
    assert run.run_id == response.headers["x-run-id"]
    assert run.verdict is not None
    assert run.verdict.ok
    assert (run.task.kind, run.task.key) == ("fill", "O-1") if run.task else False
    assert run.ext == {
        "attempt": 1,
        "gate": {"allow": []},
        "reasoning": "perhaps 3?",
        "validate": {"kind": "fill", "context": ORDER},
    }
    assert "validate" not in run.request.params
    assert provider.requests[0].messages[0].content == "fill order O-1"
    assert len(provider.requests[0].messages) == 1
    assert provider.requests[0].validate_ is None


@anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_of_a_rejected_answer_nothing_leaves(gated: World, stream: bool) -> None:
    gated.script(Step.saying('Here: {"a": "W-PHANTOM"}'))
    async with gated.client() as client:
        response = await post(client, stream=stream)
        metrics = (await client.get("/metrics")).text
    answer = put_together(response) if stream else put_apart(response)
    assert response.status_code == 200
    assert answer["finish_reason"] == "content_filter"
    assert answer["message"]["content"] is None
    assert "fill.worker_unknown, fill.count_short" in answer["message"]["refusal"]
    assert response.headers["x-verdict"] == "rejected"
    assert response.headers["x-verdict-codes"] == "fill.worker_unknown,fill.count_short"
    assert b"PHANTOM" not in sent(response)
    assert b"SECRET" not in sent(response)
    (run,) = gated.records()
    assert run.output is not None
    assert "W-PHANTOM" in (run.output.content or "")
    assert run.verdict is not None
    assert run.verdict.verdict == "rejected"
    assert 'chatd_gated_answers_total{outcome="held",verdict="rejected"} 1.0' in metrics


@anyio
async def test_what_a_person_should_see_is_held_unless_it_is_allowed(gated: World) -> None:
    gated.script(*[Step.saying('{"a":2}')] * 3, Step.saying('{"a":3}'))
    validate = ASK["validate"]
    async with gated.client() as client:
        held = await post(client)
        other = await post(client, validate={**validate, "allow": ["partially_accepted"]})
        allowed = await post(client, validate={**validate, "allow": ["needs_human_review"]})
        wrong = await post(
            client, validate={**validate, "allow": ["needs_human_review", "partially_accepted"]}
        )
    assert [put_apart(one)["message"]["content"] for one in (held, other, allowed, wrong)] == [
        None,
        None,
        '{"a":2}',
        None,
    ]
    assert allowed.headers["x-verdict"] == "needs_human_review"
    assert allowed.headers["x-verdict-codes"] == "content.discriminatory"


@anyio
async def test_an_answer_that_is_no_json_or_empty_is_judged_and_held(gated: World) -> None:
    gated.script(Step.saying("I would rather talk"), Step([Delta(finish_reason="stop")]))
    async with gated.client() as client:
        talked, empty = await post(client), await post(client)
    assert talked.headers["x-verdict"] == empty.headers["x-verdict"] == "rejected"
    assert [one["artifact"] for one in gated.validators.requests] == ["I would rather talk", ""]


@anyio
async def test_a_long_answer_is_read_like_a_short_one(gated: World) -> None:
    long = orjson.dumps({"pad": "x" * 200_000, "a": 1}).decode()
    gated.script(Step.saying(long), Step.saying(f"[{long}"))
    async with gated.client() as client:
        whole, cut = await post(client), await post(client)
    assert put_apart(whole)["message"]["content"] == long
    assert cut.headers["x-verdict"] == "rejected"


@anyio
async def test_codes_that_a_header_cannot_carry_are_left_out(gated: World) -> None:
    codes = ["x\r\nset-cookie: a=b", "ü", "good.code", *(f"c.{n}" for n in range(100))]
    gated.validators.judge = lambda _: [finding(code) for code in codes]
    gated.script(Step.saying("{}"))
    async with gated.client() as client:
        response = await post(client)
    told = response.headers["x-verdict-codes"].split(",")
    assert told[0] == "good.code"
    assert len(told) == 32
    assert "set-cookie" not in response.headers


# --- tools --------------------------------------------------------------------------------------


def calling(*arguments: str, name: str = "propose", content: str = "") -> Step:
    pieces = [
        Delta(tool_calls=(ToolCallDelta(index, text, id=f"call_{index}", name=name),))
        for index, text in enumerate(arguments)
    ]
    return Step([Delta(content=content), *pieces, Delta(finish_reason="tool_calls", usage=USAGE)])


@anyio
async def test_every_tool_call_is_judged(gated: World) -> None:
    gated.script(
        calling('{"a": 1}'),
        calling('{"a": 1}', '{"a": 3}'),
        calling('{"a": 1}', content="I propose"),
        calling('{"a": 1}', content='{"a": 1}'),
    )
    async with gated.client() as client:
        right, mixed, talking, both = [put_apart(await post(client, tools=TOOLS)) for _ in range(4)]
    call = {"id": "call_0", "type": "function", "function": {"name": "propose", "arguments": '{"a":1}'}}
    assert right["finish_reason"] == "tool_calls"
    assert (right["message"]["content"], right["message"]["tool_calls"]) == (None, [call])
    assert both["message"]["tool_calls"] == [call]
    for held in (mixed, talking):
        assert held["finish_reason"] == "content_filter"
        assert "tool_calls" not in held["message"]


@anyio
async def test_calls_of_tools_that_nobody_offered_and_floods_of_them_are_given_up(gated: World) -> None:
    gated.script(calling("{}", name="W-PHANTOM"), calling(*["{}"] * 33), calling("{}"))
    async with gated.client() as client:
        other = await post(client, tools=TOOLS)
        flood = await post(client, tools=TOOLS)
        none = await post(client)
    assert [one.status_code for one in (other, flood, none)] == [502, 502, 502]
    assert flood.json()["error"]["code"] == "too_many_tool_calls"
    assert b"PHANTOM" not in sent(other)
    assert gated.validators.requests == []


# --- repair -------------------------------------------------------------------------------------


@anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_repaired_before_it_leaves(gated: World, stream: bool) -> None:
    provider = gated.script(Step.saying('{"a": "W-PHANTOM"}'), Step.saying('{"a": 1}'))
    async with gated.client() as client:
        response = await post(
            client,
            stream=stream,
            stream_options={"include_usage": True},
            temperature=0.5,
            validate={**ASK["validate"], "attempts_max": 3},
        )
    answer = put_together(response) if stream else put_apart(response)
    assert answer["message"]["content"] == '{"a":1}'
    assert answer["usage"]["prompt_tokens"] == 14
    assert b"PHANTOM" not in sent(response)
    first, second = gated.records()
    assert second.ext["repair_of_run_id"] == first.run_id
    assert first.episode_id == second.episode_id == response.headers["x-episode-id"]
    assert response.headers["x-run-id"] == second.run_id
    asked, again = provider.requests
    assert asked.response_format is None
    assert isinstance(again.response_format, JsonSchemaFormat)
    assert again.temperature == 0.5
    assert "fill.worker_unknown (error) at /a. Fix: replace /a with 1" in str(again.messages[0].content)


@anyio
async def test_a_caller_s_own_schema_is_kept_on_repair_and_on_release(gated: World) -> None:
    schema = {"type": "object", "required": ["b"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "own", "schema": schema}}
    provider = gated.script(Step.saying('{"a":3}'), Step.saying('{"a":1}'))
    async with gated.client() as client:
        response = await post(client, response_format=wanted, validate={**ASK["validate"], "attempts_max": 2})
    assert provider.requests[1].response_format == provider.requests[0].response_format
    assert put_apart(response)["finish_reason"] == "content_filter"
    assert [run.attempts[0].code for run in gated.records()] == [None, "response_format_violated"]


# --- when there is no verdict -------------------------------------------------------------------


@anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_without_validators_nothing_leaves(gated: World, stream: bool) -> None:
    provider = gated.script(Step.saying('{"a": 1}'))
    gated.validators.down = True
    async with gated.client() as client:
        response = await post(client, stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "validators_down")
    assert "retry-after" in response.headers
    assert provider.requests == []


def _silence(_: Any) -> list[dict[str, Any]]:
    raise httpx.ConnectError("down")


def _slowness(_: Any) -> list[dict[str, Any]]:
    raise httpx.ReadTimeout("slow")


@anyio
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("judge", [_silence, _slowness])
async def test_validators_that_fall_silent_in_between(gated: World, judge: Any, stream: bool) -> None:
    gated.script(Step.saying('{"a": "W-PHANTOM"}'))
    gated.validators.judge = judge
    async with gated.client() as client:
        response = await post(client, stream=stream)
    assert (response.status_code, response.json()["error"]["type"]) == (503, "unavailable_error")
    assert "validators" in response.json()["error"]["message"]
    assert b"PHANTOM" not in sent(response)
    (run,) = gated.records()
    assert (run.attempts[0].status, run.verdict) == ("ok", None)


@anyio
@pytest.mark.parametrize(
    "lie",
    [
        {"ok": True},
        {"verdict": "accepted"},
        {"ok": True, "verdict": "accepted"},
        {"kind": "sms", "ok": True, "verdict": "accepted", "findings": []},
        {"verdict": "needs_human_review"},
        {"verdict": "splendid"},
    ],
)
async def test_a_verdict_that_contradicts_itself_is_none(gated: World, lie: dict[str, Any]) -> None:
    gated.script(Step.saying('{"a": 3}'))
    gated.validators.alter = lie
    async with gated.client() as client:
        response = await post(client, validate={**ASK["validate"], "allow": ["needs_human_review"]})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "validators_failed")


@anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_breaks_has_its_status(gated: World, stream: bool) -> None:
    gated.script(Step([Delta(content='{"a": 1}')], error=UpstreamError("broke")))
    async with gated.client() as client:
        response = await post(client, stream=stream)
    assert (response.status_code, response.json()["error"]["message"]) == (502, "broke")


# --- requests -----------------------------------------------------------------------------------


@anyio
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"validate": {"kind": "fill", "surprise": 1}}, "validate.surprise"),
        ({"validate": {"context": {}}}, "validate.kind"),
        ({"validate": {"kind": "poem"}}, "validate.kind"),
        ({"validate": {"kind": "json_schema"}}, "validate.context.schema"),
        ({"validate": {"kind": "fill", "allow": ["rejected"]}}, "validate.allow.0"),
        ({"validate": {"kind": "fill", "attempts_max": 0}}, "validate.attempts_max"),
        ({"validate": {"kind": "fill", "attempts_max": 2}, "tools": TOOLS}, "validate.attempts_max"),
        ({"validate": "fill"}, "validate"),
        ({"n": 2}, "n"),
    ],
)
async def test_bad_requests_ask_no_model(gated: World, change: dict[str, Any], param: str) -> None:
    provider = gated.script(Step.saying('{"a": 1}'))
    async with gated.client() as client:
        response = await post(client, **change)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert provider.requests == []


@anyio
async def test_without_validate_nothing_is_judged(gated: World) -> None:
    gated.script(Step.saying("anything"))
    async with gated.client() as client:
        response = await post(client, validate=None)
    assert put_apart(response)["message"]["content"] == "anything"
    assert "x-verdict" not in response.headers
    assert gated.validators.requests == []


# --- policies of keys ---------------------------------------------------------------------------


def policy(**extra: Any) -> dict[str, str]:
    return {"x-stillhouse-validate": orjson.dumps({"kind": "fill", **extra}).decode()}


@anyio
async def test_a_key_s_policy_holds_without_a_word_of_the_request(gated: World) -> None:
    gated.script(*[Step.saying('{"a":3}')] * 2, Step.saying('{"a":2}'))
    async with gated.client() as client:
        silent = await post(client, policy(context={"x": 1}), validate=None)
        wider = await post(
            client,
            policy(context={"x": 1}, allow=["needs_human_review"]),
            validate={"kind": "fill", "context": {"x": 2, **ORDER}, "allow": ["partially_accepted"]},
        )
        inherited = await post(client, policy(allow=["needs_human_review"]))
    assert [one.headers["x-verdict"] for one in (silent, wider)] == ["rejected", "rejected"]
    assert [one["context"] for one in gated.validators.requests[:2]] == [{"x": 1}, {"x": 1, **ORDER}]
    assert put_apart(inherited)["message"]["content"] == '{"a":2}'


@anyio
async def test_a_key_s_policy_cannot_be_talked_around(gated: World) -> None:
    provider = gated.script(Step.saying('{"a":1}'))
    body = {**ASK, "model": "fake"}
    async with gated.client() as client:
        other = await post(client, policy(), validate={"kind": "json_schema", "context": {"schema": {}}})
        broken = await post(client, {"x-stillhouse-validate": "{"}, validate=None)
        iterated = await client.post("/v1/iterate", json=body, headers=policy())
    assert (other.status_code, other.json()["error"]["param"]) == (403, "validate.kind")
    assert (broken.status_code, broken.json()["error"]["code"]) == (500, "policy_unreadable")
    assert (iterated.status_code, iterated.json()["error"]["code"]) == (403, "validation_policy")
    assert provider.requests == []


# --- laws ---------------------------------------------------------------------------------------

WORDS = st.from_regex(r"SECRET[0-9]{4}", fullmatch=True)
VALUES = st.recursive(
    WORDS | st.integers(-9, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("a") | WORDS, inner, max_size=3),
    max_leaves=8,
)
TEXTS = st.one_of(
    VALUES.map(lambda value: orjson.dumps(value).decode()),
    st.builds(
        "{}{}{}".format, WORDS, VALUES.map(lambda value: orjson.dumps(value).decode()), st.text(max_size=20)
    ),
    st.lists(WORDS | st.sampled_from(["{", "}", "[", "]", '"', ",", ":", "```", '{"a":1}', "\\", " "])).map(
        "".join
    ),
    st.text(max_size=30),
)
ANSWERS = st.tuples(TEXTS, st.lists(TEXTS, max_size=2), st.just("") | WORDS)


class Room:
    """One chatd for many examples."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.runner = asyncio.Runner()
        self.provider: FakeProvider = world.script()
        self._opened = world.client()
        self.client = self.runner.run(self._open())

    async def _open(self) -> httpx.AsyncClient:
        return await self._opened.__aenter__()

    async def _close(self) -> None:
        await self._opened.__aexit__(None, None, None)

    def close(self) -> None:
        self.runner.run(self._close())
        self.runner.close()

    def ask(self, *steps: Step, **extra: Any) -> httpx.Response:
        self.provider.play(*steps)
        return self.runner.run(post(self.client, **extra))


@pytest.fixture
def room(gated: World) -> Iterator[Room]:
    room = Room(gated)
    yield room
    room.close()


@settings(max_examples=150, deadline=None)
@given(answer=ANSWERS, stream=st.booleans(), attempts=st.integers(1, 2))
def _law(room: Room, answer: tuple[str, list[str], str], stream: bool, attempts: int) -> None:
    """Nothing of what the model said leaves when it is held; what leaves otherwise was judged as right."""
    text, arguments, reasoning = answer
    pieces = [
        Delta(tool_calls=(ToolCallDelta(index, call, id=f"call_{index}", name="propose"),))
        for index, call in enumerate(arguments)
    ]
    step = Step([Delta(reasoning=reasoning, content=text), *pieces, Delta(finish_reason="stop", usage=USAGE)])
    change: dict[str, Any] = {"tools": TOOLS} if arguments else {}
    if not arguments:
        change["validate"] = {**ASK["validate"], "attempts_max": attempts}
    room.world.validators.requests.clear()
    response = room.ask(*[step] * attempts, stream=stream, **change)
    assert response.status_code == 200
    assert not re.search(rb"SECRET[0-9]{4}", sent(response)) or response.headers["x-verdict"] == "accepted"
    message = (put_together(response) if stream else put_apart(response))["message"]
    said = [message["content"]] if message["content"] is not None else []
    said += [call["function"]["arguments"] for call in message.get("tool_calls", ())]
    if response.headers["x-verdict"] == "accepted":
        judged = [one["artifact"] for one in room.world.validators.requests]
        assert [orjson.loads(one) for one in said] == judged[-len(said) :]
        assert all(orjson.loads(one)["a"] == 1 for one in said)
    else:
        assert said == []


def test_whatever_a_model_says_only_what_was_accepted_leaves(room: Room) -> None:
    _law(room)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def _same(room: Room, text: str) -> None:
    step = Step([Delta(content=text), Delta(finish_reason="stop", usage=USAGE)])
    whole = room.ask(step)
    streamed = room.ask(step, stream=True, stream_options={"include_usage": True})
    assert put_together(streamed) == put_apart(whole)
    names = ("x-verdict", "x-verdict-codes", "x-policy-version")
    assert [streamed.headers.get(name) for name in names] == [whole.headers.get(name) for name in names]


def test_json_and_stream_say_the_same(room: Room) -> None:
    _same(room)
