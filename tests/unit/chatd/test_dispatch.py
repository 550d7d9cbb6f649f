"""One request over several candidates: who is asked, how often, and what becomes of it. Through the door."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import orjson
import pytest

from chatd.backends import Delta, FakeProvider, Step, ToolCallDelta
from schemas.runs import Run, Usage
from services.errors import (
    InvalidRequest,
    Overloaded,
    PlatformError,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from tests.unit.chatd.conftest import World
from tests.waiting import until

pytestmark = pytest.mark.anyio

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
BROKEN = Step(error=UpstreamError("broke"))
HANGS = Step(hang=True)


def configure(
    world: World, *, providers: Sequence[str] = ("one", "two"), provider: str = "", rest: str = ""
) -> None:
    """A `chatd.toml` with these providers, each with the lines of `provider`, and the tables of `rest`."""
    tables = [
        f'[providers.{name}]\ntype = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n'
        "retries = { attempts_max = 2, backoff_min_s = 0.001, backoff_max_s = 0.05 }\n"
        f"{provider}\n"
        for name in providers
    ]
    world.data.mkdir(parents=True, exist_ok=True)
    path = world.data / "chatd.toml"
    path.write_text("\n".join([*tables, rest]))
    world.settings["config"] = path


def alias(*models: str, more: str = "") -> str:
    return f"[aliases.best]\ncandidates = {orjson.dumps(models).decode()}\n{more}\n"


def two(world: World, first: Sequence[Step], second: Sequence[Step]) -> tuple[FakeProvider, FakeProvider]:
    return world.script(*first, name="one", models=("m",)), world.script(*second, name="two", models=("m",))


async def ask(
    client: httpx.AsyncClient, model: str = "best", headers: dict[str, str] | None = None, **extra: Any
) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={**ASK, "model": model, **extra}, headers=headers)


async def explained(
    client: httpx.AsyncClient, model: str = "best", headers: dict[str, str] | None = None, **extra: Any
) -> Any:
    response = await client.post("/v1/chat/explain", json={**ASK, "model": model, **extra}, headers=headers)
    assert response.status_code == 200
    return response.json()


async def until_told(client: httpx.AsyncClient, so: Callable[[Any], bool]) -> None:
    """Wait until `one/m` is explained so."""
    async with asyncio.timeout(30):
        while not so(await explained(client, "one/m")):  # noqa: ASYNC110 - HTTP tells when asked
            await asyncio.sleep(0.02)


def said(response: httpx.Response) -> str:
    if response.headers["content-type"].startswith("application/json"):
        return str(response.json()["choices"][0]["message"]["content"])
    chunks = [
        orjson.loads(line.removeprefix(b"data: "))
        for line in response.content.split(b"\n\n")
        if line.startswith(b"data: {")
    ]
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ())
    )


def tried(world: World) -> list[list[tuple[str, str, str | None]]]:
    return [[(one.provider, one.status, one.code) for one in run.attempts] for run in world.records()]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_broken_candidate_is_tried_again_and_then_left(world: World, stream: bool) -> None:
    configure(world, rest=alias("one/m", "two/m"))
    two(world, [BROKEN, BROKEN], [Step.saying("from two")])
    async with world.client() as client:
        response = await ask(client, stream=stream)
    assert (response.status_code, said(response)) == (200, "from two")
    failed = ("one", "failed", "upstream_failed")
    assert tried(world) == [[failed, failed, ("two", "ok", None)]]
    (run,) = world.records()
    assert (run.model.provider, run.model.name, run.ext["alias"]) == ("two", "m", "best")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (InvalidRequest("no", code="upstream_refused"), (1, 0)),
        (InvalidRequest("no", code="unsupported_parameter", param="seed"), (1, 1)),
        (UpstreamError("no key", code="upstream_credentials"), (1, 1)),
        (UpstreamTimeout("slow"), (1, 1)),
        (Overloaded("busy", code="upstream_rate_limited"), (1, 1)),
        (Unavailable("down", code="one_down"), (2, 1)),
        (InvalidRequest("too long", code="context_length_exceeded"), (1, 0)),
    ],
)
async def test_each_failure_has_its_class(
    world: World, stream: bool, error: PlatformError, asked: tuple[int, int]
) -> None:
    configure(world, rest=alias("one/m", "two/m"))
    one, other = two(world, [Step(error=error)] * 2, [Step.saying("x")])
    async with world.client() as client:
        response = await ask(client, stream=stream)
    assert (len(one.requests), len(other.requests)) == asked
    assert response.status_code == (200 if asked[1] else error.status)


async def test_after_the_first_token_nobody_else_is_asked(world: World) -> None:
    configure(world, rest=alias("one/m", "two/m"))
    _, other = two(world, [Step([Delta(content="a")], error=UpstreamError("broke"))], [Step.saying("x")])
    async with world.client() as client:
        response = await ask(client, stream=True)
    assert said(response) == "a"
    assert b'"error"' in response.content
    assert b"[DONE]" not in response.content
    assert other.requests == []


async def test_what_was_said_before_a_break_is_paid_by_a_guess(world: World) -> None:
    configure(world)
    world.script(Step([Delta(content="abcd" * 10)], error=UpstreamError("broke")), name="one", models=("m",))
    async with world.client() as client:
        await ask(client, "one/m", stream=True)
    (run,) = world.records()
    assert run.usage.completion_tokens == 10
    assert run.usage.cost_usd is None
    assert run.ext["usage_estimated"] is True


@pytest.mark.parametrize(
    ("code", "field"),
    [
        ("context_length_exceeded", "fallbacks_context"),
        ("content_policy_violation", "fallbacks_policy"),
    ],
)
async def test_some_failures_have_candidates_of_their_own(world: World, code: str, field: str) -> None:
    configure(
        world, providers=("one", "two", "three"), rest=alias("one/m", "two/m", more=f'{field} = ["three/m"]')
    )
    _, second = two(world, [Step(error=InvalidRequest("no", code=code))], [])
    world.script(Step.saying("third"), name="three", models=("m",))
    async with world.client() as client:
        assert said(await ask(client)) == "third"
    assert second.requests == []


async def test_the_attempts_of_a_request_are_counted_over_all_candidates(world: World) -> None:
    configure(
        world, rest=alias("one/m", "two/m") + "[dispatch]\nattempts_max = 3\ndefault_provider = 'one'\n"
    )
    one, other = two(world, [BROKEN] * 5, [Step(error=UpstreamError("other"))] * 5)
    async with world.client() as client:
        response = await ask(client)
        again = await ask(client, headers={"x-stainless-retry-count": "2"})
    assert (len(one.requests), len(other.requests)) == (3, 1)
    assert response.json()["error"]["message"] == "broke"  # the first candidate's
    assert response.headers["x-should-retry"] == "false"
    assert again.headers["x-should-retry"] == "false"
    assert "x-run-id" in response.headers


async def test_keys_are_turned_before_a_candidate_is_left(world: World) -> None:
    configure(world, providers=("one",))
    no_key = Step(error=UpstreamError("no", code="upstream_credentials"))
    provider = FakeProvider("one", [no_key, no_key, Step.saying("x")], models=("m",), keys=3)
    world.providers.append(provider)
    async with world.client() as client:
        assert (await ask(client, "one/m")).status_code == 200
    assert provider.keys_used == [0, 1, 2]


async def test_retry_after_is_waited_for_when_it_is_short_and_told_when_it_is_long(world: World) -> None:
    configure(world, providers=("one",))
    short = Step(error=Overloaded("busy", code="upstream_rate_limited", retry_after_s=0.02))
    long = Step(error=Overloaded("busy", code="upstream_rate_limited", retry_after_s=3000))
    provider = world.script(short, Step.saying("x"), long, name="one", models=("m",))
    async with world.client() as client:
        assert (await ask(client, "one/m")).status_code == 200
        told = await ask(client, "one/m")
        held = await ask(client, "one/m")  # nobody is asked while the provider wants to be left alone
    assert (told.status_code, told.headers["retry-after"], told.headers["retry-after-ms"]) == (
        429,
        "60",
        "60000",
    )
    assert held.status_code == 429
    assert len(provider.requests) == 3
    assert world.records()[-1].attempts == []


async def test_a_circuit_opens_and_is_probed(world: World) -> None:
    configure(world, rest="[breaker]\nfailures_max = 2\nopen_s = 4\n", providers=("one",))
    provider = world.script(BROKEN, BROKEN, Step.saying("back"), name="one", models=("m",))
    async with world.client() as client:
        assert (await ask(client, "one/m")).status_code == 502
        refused = await ask(client, "one/m")
        assert len(provider.requests) == 2
        await until_told(client, lambda told: told["candidates"][0]["circuit"] == "half_open")
        assert said(await ask(client, "one/m")) == "back"
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "circuit_open")
    assert "last with `upstream_failed`" in refused.json()["error"]["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" in refused.headers


async def test_a_candidate_with_an_open_circuit_is_passed_over(world: World) -> None:
    configure(world, rest=alias("one/m", "two/m") + "[breaker]\nfailures_max = 1\n")
    one, _ = two(world, [BROKEN], [Step.saying("x"), Step.saying("y")])
    async with world.client() as client:
        await ask(client)
        assert said(await ask(client)) == "y"
    assert len(one.requests) == 1


async def test_a_silent_candidate_is_hedged(world: World) -> None:
    configure(world, rest=alias("one/m", "two/m", more="hedge_first_token_ms = 10"))
    one, _ = two(world, [HANGS], [Step.saying("from two")])
    async with world.client() as client:
        response = await ask(client, stream=True)
    assert said(response) == "from two"
    assert one.cancelled == 1
    assert tried(world) == [[("one", "aborted", None), ("two", "ok", None)]]


async def test_a_hedge_that_fails_leaves_the_first_to_answer(world: World) -> None:
    configure(world, rest=alias("one/m", "two/m", more="hedge_first_token_ms = 10"))
    late = LateProvider("one", 0.1)
    world.providers.append(late)
    world.script(BROKEN, name="two", models=("m",))
    async with world.client() as client:
        response = await ask(client, stream=True)
    assert said(response) == "late"


class LateProvider(FakeProvider):
    def __init__(self, name: str, delay_s: float) -> None:
        super().__init__(name, [Step.saying("late")], models=("m",))
        self._delay_s = delay_s

    async def digest(self, model: str) -> str | None:
        await asyncio.sleep(self._delay_s)
        return await super().digest(model)


async def test_a_full_candidate_is_passed_over_and_a_full_queue_is_429(world: World) -> None:
    configure(world, provider="concurrency_max = 1\nwaiting_max = 1\n", rest=alias("one/m", "two/m"))
    two(world, [HANGS, Step.saying("x")], [Step.saying("from two"), HANGS])
    async with world.client() as client, asyncio.TaskGroup() as group:
        first = group.create_task(ask(client, "one/m"))
        await until(lambda: bool(world.providers[0].requests))
        assert said(await ask(client)) == "from two"
        waiting = group.create_task(ask(client, "one/m"))
        await until_told(client, lambda told: told["candidates"][0]["waiting"] == 1)
        refused = await ask(client, "one/m")
        first.cancel()
        waiting.cancel()
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "provider_busy")
    assert "retry-after" in refused.headers


async def test_the_caller_s_patience_is_a_clock(world: World) -> None:
    configure(world)
    world.script(HANGS, name="one", models=("m",))
    async with world.client() as client:
        response = await ask(client, "one/m", {"x-stainless-read-timeout": "0.1"})
    assert response.status_code == 504
    assert tried(world) == [[("one", "failed", "upstream_timeout")]]


async def test_what_a_candidate_lacks_is_dropped_where_the_caller_allows(world: World) -> None:
    configure(world, rest=alias("one/m", "two/m"))
    lacking = FakeProvider("one", [Step.saying("a"), Step.saying("b")], models=("m",), lacks=("seed",))
    able = FakeProvider("two", [Step.saying("c")], models=("m",))
    world.providers += [lacking, able]
    async with world.client() as client:
        alone = await ask(client, "one/m", seed=1)
        dropped = await ask(client, "one/m", {"x-allow-drop": "true"}, seed=1)
        chosen = await ask(client, seed=1)
    assert (alone.status_code, alone.json()["error"]["param"]) == (400, "seed")
    assert (said(dropped), dropped.headers["warning"]) == ("a", '299 chatd "dropped: seed"')
    assert lacking.requests[-1].seed is None
    assert (said(chosen), "warning" in chosen.headers) == ("c", False)
    assert world.records()[1].ext["dropped"] == ["seed"]


CACHE = "[cache]\nenabled = true\n"


async def test_the_same_request_of_the_same_key_is_answered_from_the_cache(world: World) -> None:
    configure(world, rest=CACHE)
    steps = [Step.saying(text) for text in ("first words", "second", "third", "fourth")]
    provider = world.script(*steps, name="one", models=("m",))
    ada, bob = {"x-stillhouse-principal": "ada"}, {"x-stillhouse-principal": "bob"}
    async with world.client() as client:
        miss = await ask(client, "one/m", ada)
        hit = await ask(client, "one/m", ada)
        stream = await ask(client, "one/m", ada, stream=True)
        other = await ask(client, "one/m", bob)
        warmer = await ask(client, "one/m", ada, temperature=0.5)
        fresh = await ask(client, "one/m", {**ada, "cache-control": "no-cache"})
    caches = [one.headers["x-cache"] for one in (miss, hit, stream, other, warmer, fresh)]
    assert caches == ["miss", "hit", "hit", "miss", "miss", "miss"]
    assert [said(one) for one in (hit, stream, other)] == ["first words", "first words", "second"]
    assert stream.content.endswith(b"data: [DONE]\n\n")
    assert len(provider.requests) == 4
    runs = world.records()
    assert len({run.run_id for run in runs}) == 6
    assert runs[1].ext["cached_run_id"] == runs[0].run_id
    assert (runs[1].attempts, runs[1].usage.cost_usd) == ([], 0.0)


async def test_what_a_provider_wants_back_comes_from_the_cache_too(world: World) -> None:
    configure(world, rest=CACHE)
    signed: Any = {"google": {"thought_signature": "abc"}}
    call = ToolCallDelta(0, "{}", id="call_1", name="f", extra=signed)
    world.script(
        Step([Delta(tool_calls=(call,)), Delta(finish_reason="tool_calls")]), name="one", models=("m",)
    )
    async with world.client() as client:
        await ask(client, "one/m")
        stream = await ask(client, "one/m", stream=True)
    assert stream.headers["x-cache"] == "hit"
    assert '"thought_signature":"abc"' in stream.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("words", "fits"), [(400, True), (600, False)])
async def test_the_text_of_an_answer_is_bounded(
    world: World, words: int, *, fits: bool, stream: bool
) -> None:
    world.settings["answer_bytes_max"] = 1024
    world.script(
        Step.saying(" ".join("a" * words)), Step.saying(" ".join("a" * words)), name="one", models=("m",)
    )
    async with world.client() as client:
        answer = await ask(client, "one/m", stream=stream)
    assert ("upstream_answer_too_large" in answer.text) != fits


async def test_a_cut_answer_is_not_kept(world: World) -> None:
    configure(world, rest=CACHE)
    cut = Step([Delta(content="a"), Delta(finish_reason="length")])
    world.script(cut, Step.saying("whole"), name="one", models=("m",))
    async with world.client() as client:
        await ask(client, "one/m")
        assert said(await ask(client, "one/m")) == "whole"


PRICES = """
[prices."one/m"]
"/in" = 1.0
"/out" = 2.0
"/cached" = { usd_per_million = -0.5, optional = true }
[budgets]
usd_a_day = 0.01
reserve_completion_tokens = 1000
"""


def priced(**raw: int) -> Step:
    usage = Usage(prompt_tokens=1000, completion_tokens=1000)
    last = Delta(finish_reason="stop", usage=usage, raw_usage=dict(raw))
    return Step([Delta(content="a"), last])


async def test_a_call_has_a_price_and_a_key_its_budget(world: World) -> None:
    configure(world, rest=PRICES)
    steps = [
        priced(**{"in": 1000, "out": 1000, "cached": 200}),
        priced(**{"in": 1000}),
        priced(**{"in": 1, "out": 3500}),
    ]
    world.script(*steps, name="one", models=("m",))
    async with world.client() as client:
        for _ in range(3):
            assert (await ask(client, "one/m")).status_code == 200
        refused = await ask(client, "one/m")
        other = await ask(client, "one/m", {"x-stillhouse-principal": "bob"})
    assert [run.usage.cost_usd for run in world.records()][:3] == [
        pytest.approx(0.0029),
        None,  # a count that the price needs is missing
        pytest.approx(0.007001),
    ]
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_exceeded")
    assert refused.headers["x-should-retry"] == "false"
    assert other.json()["error"]["message"] == "the script of this fake is at its end"  # it was asked
    restarted = World(world.data, settings=world.settings)
    restarted.script(Step.saying("x"), name="one", models=("m",))
    async with restarted.client() as client:
        assert (await ask(client, "one/m")).status_code == 429


async def test_an_exchanged_configuration_stands_in_the_next_record(world: World) -> None:
    configure(world, provider="concurrency_max = 7")
    world.settings["config_poll_s"] = 0.02
    world.script(Step.saying("x"), Step.saying("y"), name="one", models=("m",))
    async with world.client() as client:
        await ask(client, "one/m")
        before = world.records()[0].config_hash
        configure(world, provider="concurrency_max = 8")
        await until_told(client, lambda told: told["config_hash"] != before)
        await ask(client, "one/m")
    hashes = [run.config_hash for run in world.records()]
    assert hashes[0] == before
    assert hashes[1] != before


async def test_a_record_is_written_as_its_schema_writes_it(world: World) -> None:
    configure(world, rest=alias("one/m", "two/m") + PRICES)
    two(world, [BROKEN, BROKEN], [priced(**{"in": 1, "out": 2})])
    world.distill.down = True
    async with world.client() as client:
        await ask(client, headers={"x-episode-id": "e-1"}, temperature=0.5, tools=[TOOL], seed=3)
        await ask(client, "one/absent")
    lines = [line for path in world.spool.glob("segment-*.jsonl") for line in path.read_bytes().splitlines()]
    assert len(lines) == 2
    for line in lines:
        again = Run.model_validate_json(line).to_line()
        assert orjson.loads(line) == orjson.loads(again)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
