"""Generate, validate, repair, with scripted models and validators that judge by rule."""

from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatd.backends import Step
from chatd.engine.artifacts import with_fixes
from chatd.engine.plan import Plan
from schemas.chat import JsonSchemaFormat
from schemas.verdicts import Finding
from services.answers import parse
from services.errors import Forbidden, InvalidRequest, NotFound, PlatformError, UpstreamError
from tests.unit.chatd.conftest import World

pytestmark = pytest.mark.anyio

ASK: dict[str, Any] = {
    "messages": [{"role": "user", "content": "fill order O-1 in Dayton"}],
    "model": "fake",
    "validate": {"kind": "fill", "context": {"order": {"order_id": "O-1"}}},
}
JUDGED = {**ASK["validate"], "system_chars": 0}


def finding(**extra: Any) -> dict[str, Any]:
    return {
        "code": "fill.name_mismatch",
        "severity": "error",
        "path": "/fills/0/name",
        "message": "not the name on the roster",
        **extra,
    }


def wants(**expected: Any) -> Any:
    """Findings for every key of the artifact that has another value, with the fix."""

    def judge(artifact: Any) -> list[dict[str, Any]]:
        if not isinstance(artifact, dict):
            return [finding(code="schema.invalid", path="")]
        return [
            finding(path=f"/{key}", fix={"op": "replace", "path": f"/{key}", "value": value})
            for key, value in expected.items()
            if artifact.get(key) != value
        ]

    return judge


def says(value: Any) -> Step:
    return Step.saying(orjson.dumps(value).decode())


async def ask(world: World, **extra: Any) -> httpx.Response:
    async with world.client() as client:
        return await client.post("/v1/iterate", json={**ASK, **extra}, headers={"x-episode-id": "ep"})


async def test_first_pass(world: World) -> None:
    provider = world.script(Step.saying('Sure:\n```json\n{"a": 1}\n```'))
    world.validators.judge = wants(a=1)
    response = await ask(world, temperature=0)
    body = response.json()
    assert (response.status_code, body["ok"], body["outcome"]) == (200, True, "first_pass")
    assert body["artifact"] == {"a": 1}
    assert body["verdict"]["verdict"] == "accepted"
    assert body["episode_id"] == response.headers["x-episode-id"] == "ep"
    (run,) = world.records()
    assert body["attempts"] == [
        {
            "model": "fake",
            "artifact": {"a": 1},
            "findings": [],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "cost_usd": None},
            "run_id": run.run_id,
            "verdict": "accepted",
            "served_by": run.model.model_dump(),
            "latency_ms": run.latency_ms,
        }
    ]
    assert body["config_hash"] == run.config_hash
    assert (run.episode_id, run.ext) == ("ep", {"attempt": 1, "validate": JUDGED})
    assert run.task is not None
    assert (run.task.kind, run.task.key) == ("fill", "O-1")
    assert run.verdict is not None
    assert run.verdict.ok
    assert run.request.params["temperature"] == 0
    assert run.request.params["max_tokens"] == 1024
    system = provider.requests[0].messages[0]
    assert system.role == "system"
    assert "of the kind fill" in str(system.content)
    wanted = provider.requests[0].response_format
    assert isinstance(wanted, JsonSchemaFormat)
    assert wanted.json_schema.schema_["properties"]["order_id"] == {"const": "O-1"}  # type: ignore[index,call-overload] # JSON
    assert orjson.dumps(wanted.json_schema.schema_).decode() in str(system.content)
    assert world.validators.requests[0]["run_id"] == run.run_id


async def test_the_gateway_is_told_the_tokens_of_all_attempts(world: World) -> None:
    world.script(says({"a": 0}), says({"a": 1}))
    world.validators.judge = wants(a=1)
    async with world.client() as client:
        answer = await client.post("/v1/iterate", json=ASK, headers={"x-stillhouse-metered": "1"})
    spent = [
        one["usage"]["prompt_tokens"] + one["usage"]["completion_tokens"] for one in answer.json()["attempts"]
    ]
    assert len(spent) == 2
    assert answer.headers["x-stillhouse-tokens"] == str(sum(spent))


async def test_a_repair_is_told_code_place_and_fixed_value(world: World) -> None:
    provider = world.script(says({"a": 0, "b": 2}), says({"a": 1, "b": 2}))
    world.validators.judge = wants(a=1)
    body = (await ask(world)).json()
    assert (body["ok"], body["outcome"], len(body["attempts"])) == (True, "repaired", 2)
    assert body["attempts"][0]["findings"][0]["code"] == "fill.name_mismatch"
    told, asked = provider.requests[1].messages
    assert (told.role, asked.content) == ("system", "fill order O-1 in Dayton")
    assert "fill.name_mismatch (error) at /a" in str(told.content)
    assert "replace /a with 1" in str(told.content)
    assert str(told.content).endswith('{"a":1,"b":2}')
    assert '"a":0' not in str(told.content)
    first, second = world.records()
    assert second.ext == {"attempt": 2, "repair_of_run_id": first.run_id, "validate": JUDGED}
    assert [run.verdict.ok for run in (first, second) if run.verdict] == [False, True]
    assert first.episode_id == second.episode_id == "ep"


async def test_escalation_to_the_stronger_model(world: World) -> None:
    world.script(says({"a": 0}), says({"a": 0}), says({"a": 1}), models=("small", "large"))
    world.validators.judge = wants(a=1)
    body = (await ask(world, model=None, models=["small", "large"], attempts_max=4)).json()
    assert [one["model"] for one in body["attempts"]] == ["small", "small", "large"]
    assert (body["ok"], body["outcome"]) == (True, "escalated")


async def test_it_stops_when_nothing_improves_and_returns_the_best(world: World) -> None:
    provider = world.script(says({"a": 1, "b": 0}), says({"a": 0, "b": 0}), says({"a": 0, "b": 0, "c": 1}))
    world.validators.judge = wants(a=1, b=1)
    body = (await ask(world, attempts_max=9)).json()
    assert (body["ok"], body["outcome"]) == (False, "failed")
    assert len(body["attempts"]) == 3
    assert body["artifact"] == {"a": 1, "b": 0}
    assert len(body["verdict"]["findings"]) == 1
    assert len(provider.requests) == 3


@pytest.mark.parametrize("name", ["needs_human_review", "partially_accepted"])
async def test_what_is_not_accepted_is_not_ok_and_comes_with_its_verdict(world: World, name: str) -> None:
    world.script(says({"a": 0}), says({"a": 0, "b": 1}))
    severity = "review" if name == "needs_human_review" else "error"
    world.validators.judge = lambda _: [finding(severity=severity)]
    world.validators.alter = {"verdict": name}
    body = (await ask(world, attempts_max=2)).json()
    assert (body["ok"], body["outcome"], body["verdict"]["verdict"]) == (False, "failed", name)
    assert body["artifact"] == {"a": 0, "b": 1}
    assert len(body["attempts"]) == 2


@pytest.mark.parametrize("lie", [{"ok": True}, {"ok": True, "verdict": "accepted"}, {"kind": "sms"}])
async def test_a_verdict_that_contradicts_itself_accepts_nothing(world: World, lie: dict[str, Any]) -> None:
    world.script(says({"a": 0}))
    world.validators.judge = wants(a=1)
    world.validators.alter = lie
    response = await ask(world)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "validators_failed")
    assert "artifact" not in response.json()


async def test_tokens_and_time_end_it_too(world: World) -> None:
    world.script(says({"a": 0, "b": 0}), says({"a": 0, "b": 1}))
    world.validators.judge = wants(a=1)
    world.settings = {"iterate_total_tokens_max": 20}
    few = (await ask(world, attempts_max=5)).json()
    assert (few["outcome"], len(few["attempts"])) == ("failed", 2)
    world.providers.clear()
    provider = world.script(Step(hang=True))
    world.settings = {"iterate_timeout_s": 0.1}
    late = await ask(world, model=None, models=["fake", "fake"])
    assert (late.status_code, late.json()["error"]["code"]) == (504, "upstream_timeout")
    assert (len(provider.requests), provider.cancelled) == (1, 1)


async def test_a_schema_that_a_provider_refuses_is_asked_for_in_words_alone(world: World) -> None:
    provider = world.script(Step(error=InvalidRequest("no such keyword")), says({"a": 1}))
    world.validators.judge = wants(a=1)
    body = (await ask(world)).json()
    assert (body["ok"], len(body["attempts"])) == (True, 2)
    assert body["attempts"][0]["artifact"] is None
    assert [request.response_format is None for request in provider.requests] == [False, True]


async def test_a_prompt_that_is_too_long_is_tried_without_its_schema(world: World) -> None:
    too_long = InvalidRequest("too long", code="context_length_exceeded")
    provider = world.script(Step(error=too_long), says({"a": 1}))
    world.validators.judge = wants(a=1)
    assert (await ask(world)).json()["ok"]
    told = [str(request.messages[0].content) for request in provider.requests]
    assert ["JSON Schema" in one for one in told] == [True, False]
    assert all(request.response_format is not None for request in provider.requests)


async def test_a_provider_that_refuses_twice_is_left(world: World) -> None:
    refusal = Step(error=InvalidRequest("no"))
    world.script(refusal, refusal, says({"a": 1}), models=("small", "large"))
    world.validators.judge = wants(a=1)
    body = (await ask(world, model=None, models=["small", "large"], attempts_max=6)).json()
    assert [one["model"] for one in body["attempts"]] == ["small", "small", "large"]
    assert body["outcome"] == "escalated"


async def test_candidates_come_from_notes_and_bind_the_model(world: World) -> None:
    world.vectord.payload = {"worker_id": "W-1"}
    provider = world.script(says({"a": 1}))
    context = {"order": {"order_id": "O-1", "count": 1}}
    await ask(world, retrieve={"collections": ["workers"]}, validate={"kind": "fill", "context": context})
    wanted = provider.requests[0].response_format
    assert isinstance(wanted, JsonSchemaFormat)
    assert b'"enum":["W-1"]' in orjson.dumps(wanted.json_schema.schema_)


async def test_a_repair_is_told_no_words_meant_for_people(world: World) -> None:
    provider = world.script(says({"a": 0}), says({"a": 1}))
    evidence = {"segments": 3}
    world.validators.judge = lambda artifact: (
        [] if artifact == {"a": 1} else [finding(code="sms.too_long", path="/body", evidence=evidence)]
    )
    await ask(world)
    told = str(provider.requests[1].messages[0].content)
    assert 'sms.too_long (error) at /body. Evidence: {"segments":3}' in told
    assert "not the name on the roster" not in told


async def test_the_budget_ends(world: World) -> None:
    world.script(says({"a": 0, "b": 0}), says({"a": 0, "b": 1}))
    world.validators.judge = wants(a=1, b=1)
    body = (await ask(world, attempts_max=2)).json()
    assert (body["outcome"], len(body["attempts"])) == ("failed", 2)


async def test_an_answer_that_is_no_json_goes_to_the_validator_as_it_is(world: World) -> None:
    world.script(Step.saying("I cannot"), says({"a": 1}))
    world.validators.judge = wants(a=1)
    provider = world.providers[0]
    body = (await ask(world)).json()
    assert body["attempts"][0]["artifact"] == "I cannot"
    assert str(provider.requests[1].messages[0].content).endswith("I cannot")
    assert body["outcome"] == "repaired"


async def test_notes_are_put_before_the_model_and_into_the_run(world: World) -> None:
    provider = world.script(says({"a": 1}))
    retrieve = {"collections": ["playbooks"], "role": "forklift", "k": 2}
    messages = [{"role": "system", "content": "You are terse."}, *ASK["messages"]]
    await ask(world, retrieve=retrieve, messages=messages)
    assert world.vectord.requests == [{**retrieve, "query": "fill order O-1 in Dayton", "mode": "dense"}]
    system, user = provider.requests[0].messages
    assert str(system.content).startswith("You are terse.")
    assert "[1] Forklift orders in Dayton" in str(system.content)
    assert user.role == "user"
    (note,) = world.records()[0].retrieved_context
    assert (note.collection, note.id, note.role) == ("playbooks", 0, "forklift")
    assert len(note.text_sha256) == 64


async def test_notes_that_the_caller_has_count_as_retrieved_ones(world: World) -> None:
    provider = world.script(says({"a": 1}))
    note = {"collection": "workers", "id": "W-1", "role": "forklift", "score": 0.5, "text": "Ana, near, free"}
    context = {"order": {"order_id": "O-1", "count": 1}}
    given = [{**note, "worker_id": "W-1"}, {**note, "text": "Forklifts are scarce"}]
    await ask(world, notes=given, validate={"kind": "fill", "context": context})
    assert world.vectord.requests == []
    assert "[1] Ana, near, free\n[2] Forklifts are scarce" in str(provider.requests[0].messages[0].content)
    assert b'"enum":["W-1"]' in orjson.dumps(provider.requests[0].response_format.json_schema.schema_)  # type: ignore[union-attr]
    (run,) = world.records()
    assert [one.text for one in run.retrieved_context] == [one["text"] for one in given]
    assert run.ext["validate"] == {
        "kind": "fill",
        "context": context,
        "system_chars": 0,
        "worker_ids": ["W-1", None],
    }


async def test_notes_that_do_not_fit_are_left_out_of_both(world: World) -> None:
    world.script(says({"a": 1}))
    world.settings = {"notes_chars_max": 10}
    await ask(world, retrieve={"collections": ["playbooks"]})
    assert world.records()[0].retrieved_context == []


@pytest.mark.parametrize(
    "refusal",
    [
        InvalidRequest("a role is needed", code="role_required", param="role"),
        Forbidden("not for this key", code="role_forbidden", param="role"),
        NotFound("there is no collection", code="collection_not_found", param="collections.0"),
    ],
)
async def test_a_refusal_of_vectord_names_the_field_as_the_caller_wrote_it(
    world: World, refusal: PlatformError
) -> None:
    world.script(says({"a": 1}))
    world.vectord.refusal = refusal
    response = await ask(world, retrieve={"collections": ["playbooks"]})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (refusal.status, refusal.code)
    assert error["param"] == f"retrieve.{refusal.param}"


@pytest.mark.parametrize("peer", ["validators", "vectord"])
async def test_a_peer_that_is_down_is_named_before_a_model_is_asked(world: World, peer: str) -> None:
    provider = world.script(says({"a": 1}))
    getattr(world, peer).down = True
    response = await ask(world, retrieve={"collections": ["playbooks"]})
    assert (response.status_code, response.json()["error"]["code"]) == (503, f"{peer}_down")
    assert peer in response.json()["error"]["message"]
    assert provider.requests == []


async def test_validators_going_down_in_between_leaves_a_record(world: World) -> None:
    world.script(says({"a": 1}))

    def judge(_: Any) -> list[dict[str, Any]]:
        raise httpx.ConnectError("down")

    world.validators.judge = judge
    response = await ask(world)
    assert response.status_code == 503
    (run,) = world.records()
    assert (run.attempts[0].status, run.verdict) == ("ok", None)


async def test_a_failing_provider_hands_over_to_the_next_model(world: World) -> None:
    broken = Step(error=UpstreamError("broke"))
    world.script(broken, broken, says({"a": 1}), models=("small", "large"))
    world.validators.judge = wants(a=1)
    body = (await ask(world, model=None, models=["small", "large"])).json()
    assert body["outcome"] == "escalated"
    assert body["attempts"][0]["artifact"] is None
    tried = [[attempt.status for attempt in run.attempts] for run in world.records()]
    assert tried == [["failed", "failed"], ["ok"]]


async def test_when_no_model_answers_the_provider_s_error_is_the_answer(world: World) -> None:
    world.script(Step(error=UpstreamError("broke")))
    response = await ask(world)
    assert (response.status_code, response.json()["error"]["message"]) == (502, "broke")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"surprise": 1}, "surprise"),
        ({"attempts_max": "2"}, "attempts_max"),
        ({"temperature": True}, "temperature"),
        ({"validate": {"kind": "poem"}}, "validate.kind"),
        ({"validate": {"kind": "json_schema"}}, "validate.context.schema"),
        ({"models": ["a", "b"]}, None),
        ({"model": None, "models": ["a", "b"], "attempts_max": 1}, None),
        (
            {"messages": [{"role": "assistant", "content": "x"}], "retrieve": {"collections": ["c"]}},
            "retrieve.query",
        ),
    ],
)
async def test_bad_requests(world: World, change: dict[str, Any], param: str | None) -> None:
    world.script()
    response = await ask(world, **change)
    assert response.status_code == 400
    if param is not None:
        assert response.json()["error"]["param"] == param


def test_attempts_are_shared_out_and_handed_on() -> None:
    plan = Plan(["a", "b", "c"], 5)
    assert [plan.next(stuck=False) for _ in range(6)] == ["a", "a", "b", "b", "c", None]
    plan = Plan(["a", "b"], 4)
    assert [plan.next(stuck=False), plan.next(stuck=True)] == ["a", "b"]
    assert [plan.next(stuck=False) for _ in range(3)] == ["b", "b", None]


@pytest.mark.parametrize(
    ("text", "artifact"),
    [
        ('{"a":1}', {"a": 1}),
        ('```json\n{"a":1}\n```', {"a": 1}),
        ('Here {it} is: {"a":[1]} bye', {"a": [1]}),
        ('{"a":NaN}', '{"a":NaN}'),
        ('{"a":9007199254740993}', '{"a":9007199254740993}'),
        ('[1] says {"a":2}', {"a": 2}),
        ('["x"] alone', ["x"]),
        ('{"a":[1,2,],}', {"a": [1, 2]}),
        ('{"a":"x,]"}', {"a": "x,]"}),
        ('{"a":"q\\"}"} and {"b":1}', {"a": 'q"}'}),
        ('{"a":1,"a":2}', {"a": 2}),
        ('{"a":{"b":1}', '{"a":{"b":1}'),
        ('{"b":{"c":1},"a":9007199254740993}', '{"b":{"c":1},"a":9007199254740993}'),
        ('{"a":"\\ud800"}', '{"a":"\\ud800"}'),
        ('{"a":1e999}', '{"a":1e999}'),
        ("{'a':1}", "{'a':1}"),
        ("nothing", "nothing"),
        ("", ""),
    ],
)
def test_the_json_in_an_answer_is_found(text: str, artifact: Any) -> None:
    assert parse(text) == artifact


@given(st.text(st.sampled_from('{}[]",:1a\\ \n')) | st.text())
def test_what_is_found_can_be_kept(text: str) -> None:
    for array in (False, True):
        artifact = parse(text, array=array)
        assert artifact == text or isinstance(artifact, dict | list)
        assert artifact == text or parse(orjson.dumps(artifact).decode(), array=array) == artifact


@pytest.mark.parametrize(
    "text", ["[" * 10**6, '{"' * 10**6, "[}" * 10**6, '{"a":' + "[" * 5000, '{"a":"' + '\\"' * 10**6]
)
def test_noise_is_given_up(text: str) -> None:
    assert parse(text) == text


def test_an_array_is_found_where_one_is_wanted() -> None:
    assert parse('{"a":1} [2]', array=True) == [2]
    assert parse('{"a":1}', array=True) == {"a": 1}


def test_fixes_are_shown_applied_without_touching_the_artifact() -> None:
    artifact: Any = {"fills": [{"id": "x"}, {"id": "y"}, {"id": "z"}], "t/s": 1}
    fixes = [
        {"op": "remove", "path": "/fills/0"},
        {"op": "remove", "path": "/fills/1"},
        {"op": "remove", "path": "/fills/1"},
        {"op": "replace", "path": "/fills/2/id", "value": "w"},
        {"op": "add", "path": "/fills/-", "value": {"id": "v"}},
        {"op": "replace", "path": "/t~1s", "value": 2},
        {"op": "replace", "path": "/no/where", "value": 3},
        {"note": "by hand"},
    ]
    findings = [Finding.model_validate(finding(fix=fix)) for fix in fixes]
    fixed = with_fixes(artifact, findings)
    assert fixed == {"fills": [{"id": "w"}, {"id": "v"}], "t/s": 2}
    assert len(artifact["fills"]) == 3
    whole = Finding.model_validate(finding(fix={"op": "replace", "path": "", "value": []}))
    assert with_fixes(artifact, [whole]) == []
