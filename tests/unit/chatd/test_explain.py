"""Who would be asked, in which order, and why, without asking."""

import pytest

from chatd.backends import FakeProvider, Step
from tests.unit.chatd.conftest import World
from tests.unit.chatd.test_dispatch import ASK, BROKEN, CACHE, PRICES, alias, ask, configure, explained, two

pytestmark = pytest.mark.anyio


async def test_the_candidates_of_an_alias_with_their_reasons(world: World) -> None:
    fallbacks = 'fallbacks_context = ["three/m"]\nfallbacks_policy = ["three/m"]\nhedge_first_token_ms = 500'
    configure(world, providers=("one", "two", "three"), rest=alias("one/m", "two/m", more=fallbacks))
    one, other = two(world, [], [])
    third = world.script(name="three", models=("m",))
    async with world.client() as client:
        told = await explained(client)
    assert [(one["model"], one["place"], one["when"]) for one in told["candidates"]] == [
        ("one/m", 1, "first"),
        ("two/m", 2, "candidate"),
        ("three/m", None, "context"),
        ("three/m", None, "policy"),
    ]
    assert (told["alias"], told["strategy"], told["attempts_max"]) == (True, "ordered", 4)
    assert (told["hedge_first_token_ms"], told["cache"], told["budget_left_usd"]) == (500.0, "off", None)
    assert [provider.requests for provider in (one, other, third)] == [[], [], []]
    assert world.records() == []


async def test_it_foretells_what_is_done(world: World) -> None:
    configure(world, rest=alias("one/m", "two/m") + "[breaker]\nfailures_max = 1\n")
    _, other = two(world, [BROKEN], [Step.saying("x"), Step.saying("y")])
    async with world.client() as client:
        await ask(client)
        told = await explained(client)
        await ask(client)
    first, second = told["candidates"]
    assert (first["place"], first["circuit"], second["place"], second["when"]) == (None, "open", 1, "first")
    assert "failed too often" in first["reason"]
    assert second["answers_in_ms"] is not None
    assert len(other.requests) == 2


async def test_what_is_lacking_dropped_kept_and_affordable(world: World) -> None:
    configure(world, rest=alias("one/m", "two/m") + PRICES + CACHE)
    lacking = FakeProvider("one", [], models=("m",), lacks=("seed",))
    world.providers += [lacking, FakeProvider("two", [Step.saying("x")], models=("m",))]
    async with world.client() as client:
        passed_over = (await explained(client, seed=1))["candidates"][0]
        dropping = (await explained(client, "one/m", {"x-allow-drop": "true"}, seed=1))["candidates"][0]
        missing = await explained(client)
        await ask(client, "two/m")
        kept = await explained(client, "two/m")
        dear = await explained(client, "one/m", max_tokens=1_000_000)
    assert (passed_over["place"], passed_over["lacks"]) == (None, ["seed"])
    assert "lacks seed" in passed_over["reason"]
    assert (dropping["place"], dropping["dropped"]) == (1, ["seed"])
    assert (missing["cache"], kept["cache"]) == ("miss", "hit")
    assert missing["budget_left_usd"] == pytest.approx(0.01)
    assert missing["candidates"][0]["cost_max_usd"] == pytest.approx(0.002, rel=0.02)
    assert missing["candidates"][1]["cost_max_usd"] is None
    assert "US dollars left" in dear["candidates"][0]["reason"]


async def test_an_unknown_model_is_not_explained(world: World) -> None:
    configure(world, rest=alias("one/m"))
    two(world, [], [])
    async with world.client() as client:
        response = await client.post("/v1/chat/explain", json={**ASK, "model": "nobody/m"})
    assert response.status_code == 404
    assert "`best`" in response.json()["error"]["message"]
