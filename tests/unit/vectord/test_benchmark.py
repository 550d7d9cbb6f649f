"""The benchmark of a collection: its recall is that of real searches, and what it chooses is kept."""

import random
from typing import Any

import pytest

from tests.unit.vectord.conftest import Open, Vectord

pytestmark = pytest.mark.anyio

DIMENSION = 8


def vector(number: int) -> list[float]:
    random_ = random.Random(number)
    return [random_.gauss(0, 1) for _ in range(DIMENSION)]


async def fill(vectord: Vectord, name: str, **spec: Any) -> None:
    await vectord.call("PUT", f"/collections/{name}", {"dimension": DIMENSION, "hybrid": False, **spec})
    role = {"role": "welder"} if spec.get("gated") else {}
    points = [{"id": n, "vector": vector(n), "payload": {"n": n}, **role} for n in range(200)]
    await vectord.put(name, *points)


async def test_settings_are_measured_against_exact_search(vectord: Vectord) -> None:
    await fill(vectord, "c")
    request = {"queries": 20, "k": 5, "sweep": {"ef": [8, 64]}, "concurrency": 3}
    answer = await vectord.call("POST", "/collections/c/benchmark", request)
    assert [setting["ef"] for setting in answer["settings"]] == [8, 64]
    for setting in answer["settings"]:
        assert setting["recall"] == 1.0  # so few points are all looked at
        assert 0 < setting["p50_ms"] <= setting["p95_ms"] <= setting["p99_ms"]
        assert setting["queries_per_s"] > 0
    assert (answer["points"], answer["queries"], answer["selectivity"]) == (200, 20, 1.0)
    assert answer["best"] is None


async def test_a_filter_has_its_selectivity(vectord: Vectord) -> None:
    await fill(vectord, "c")
    few = {"must": [{"key": "n", "range": {"lt": 20}}]}
    answer = await vectord.call("POST", "/collections/c/benchmark", {"queries": 5, "filter": few})
    assert answer["selectivity"] == 0.1
    assert all(setting["recall"] == 1.0 for setting in answer["settings"])


async def test_what_is_chosen_is_kept(open_vectord: Open) -> None:
    async with open_vectord() as vectord:
        await fill(vectord, "c")
        request = {"queries": 5, "sweep": {"ef": [77]}, "target_recall": 0.5, "apply": True}
        answer = await vectord.call("POST", "/collections/c/benchmark", request)
        assert (answer["best"]["ef"], answer["ef"]) == (77, 77)


async def test_a_limited_key_asks_for_its_role_and_changes_nothing(vectord: Vectord) -> None:
    await fill(vectord, "g", gated=True)
    path = "/collections/g/benchmark"
    assert (await vectord.error("POST", path, {"queries": 5}))["code"] == "role_required"
    mine = {"queries": 5, "role": "welder"}
    assert (await vectord.call("POST", path, mine, roles="welder"))["settings"][0]["recall"] == 1.0
    other = {"queries": 5, "role": "welder"}
    refused = await vectord.error("POST", path, other, roles="cook", status=403)
    assert refused["code"] == "role_forbidden"
    apply = {**mine, "target_recall": 0.5, "apply": True}
    assert (await vectord.error("POST", path, apply, roles="welder", status=403))["param"] == "apply"


async def test_there_must_be_something_to_ask_for(vectord: Vectord) -> None:
    await vectord.call("PUT", "/collections/c", {"dimension": DIMENSION})
    assert (await vectord.error("POST", "/collections/c/benchmark", {}, status=409))["code"] == (
        "collection_empty"
    )
    assert (await vectord.error("POST", "/collections/c/benchmark", {"apply": True}))["message"]
