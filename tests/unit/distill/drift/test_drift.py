"""Drift through the door: two weeks of work are sent, materialized, scored and compared."""

from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.unit.distill.builders import Json, distill, done, episode, finished, send
from tests.unit.distill.drift.windows_of_work import FIRST_WEEK, SECOND_WEEK, week

pytestmark = pytest.mark.anyio

SINCE = SECOND_WEEK.isoformat()


async def compared(data: Path, records: list[Json], **asked: Any) -> Json:
    async with distill(data) as client:
        await scored(client, records)
        return await drifted(client, **asked)


async def scored(client: httpx.AsyncClient, records: list[Json]) -> None:
    await send(client, records)
    await done(client, stage="materialize")
    await done(client, stage="score")


async def drifted(client: httpx.AsyncClient, **asked: Any) -> Json:
    job = await done(client, stage="drift", **asked)
    return dict(job["drift"])


def inputs(drift: Json) -> dict[str, Json]:
    return {one["property"]: one for one in drift["inputs"]}


def outputs(drift: Json) -> dict[str, Json]:
    return {".".join(filter(None, (one["metric"], one["key"]))): one for one in drift["outputs"]}


def found(drift: Json) -> set[str]:
    """What differs, and not by accident."""
    return {name for side in (inputs, outputs) for name, one in side(drift).items() if one["drifted"]}


async def test_weeks_that_are_alike_have_not_drifted(tmp_path: Path) -> None:
    drift = await compared(tmp_path, [*week(FIRST_WEEK), *week(SECOND_WEEK)], since=SINCE)
    assert found(drift) == set()
    assert drift["baseline"]["count"] == drift["current"]["count"] == 40
    assert drift["ts"] == "2026-11-10T15:00:00Z"
    rate = outputs(drift)["finding.fill.underage"]
    assert (rate["baseline"], rate["current"], rate["p"]) == (0.1, 0.1, 1)
    assert rate["interval"][0] < 0 < rate["interval"][1]


async def test_what_came_out_is_told_from_what_went_in(tmp_path: Path) -> None:
    later = week(SECOND_WEEK, rejected=30, code="fill.role_mismatch")
    drift = await compared(tmp_path, [*week(FIRST_WEEK), *later], since=SINCE)
    assert found(drift) == {"category.accepted", "category.rejected", "finding.fill.role_mismatch"}
    code = outputs(drift)["finding.fill.role_mismatch"]
    assert (code["baseline"], code["current"], code["difference"]) == (0, 0.75, 0.75)
    assert code["interval"][0] > 0.5


async def test_another_model_config_prompt_and_slower_answers_are_found(tmp_path: Path) -> None:
    later = list(week(SECOND_WEEK, model={"provider": "ollama", "name": "other"}, config_hash="decaf"))
    for one in later:
        one["request"]["messages"].insert(0, {"role": "system", "content": "Be brief."})
        one["latency_ms"] *= 3
        one["usage"]["cost_usd"] = 0.01
    drift = await compared(tmp_path, [*week(FIRST_WEEK), *later], since=SINCE)
    assert found(drift) == {"model", "config", "prompt", "latency", "cost"}
    model = inputs(drift)["model"]
    assert (model["baseline"], model["current"]) == ({"ollama/tiny": 1}, {"ollama/other": 1})
    assert model["distance"] == 1
    latency = outputs(drift)["latency"]
    assert latency["baseline"] == pytest.approx(420, rel=0.02)
    assert latency["difference"] == pytest.approx(840, rel=0.02)
    assert latency["interval"][0] > 800


async def test_flips_are_of_the_same_task(tmp_path: Path) -> None:
    later = week(SECOND_WEEK, rejected=14, tasks=True)
    drift = await compared(tmp_path, [*week(FIRST_WEEK, tasks=True), *later], since=SINCE)
    flip = outputs(drift)["verdict_flip"]
    assert (flip["baseline"], flip["current"], flip["baseline_tasks"]) == (0.9, 0.65, 40)
    assert flip["drifted"]
    assert len(drift["flips"]) == 10
    assert not any(one["accepted"] for one in drift["flips"])


async def test_a_task_done_often_counts_once(tmp_path: Path) -> None:
    """Forty attempts at one order say as much of a model as one order does."""
    later = list(week(SECOND_WEEK, rejected=40))
    for one in later:
        one["task"] = {"kind": "fill", "key": "JO-1"}
    drift = await compared(tmp_path, [*week(FIRST_WEEK), *later], since=SINCE)
    assert outputs(drift)["finding.fill.underage"]["current_tasks"] == 1
    assert found(drift) == set()


async def test_repairs_and_replays_are_no_work_of_their_own(tmp_path: Path) -> None:
    replays = [
        {**one, "run_id": f"again-{at}", "episode_id": "replay.1"} for at, one in enumerate(week(SECOND_WEEK))
    ]
    repaired = episode("JO-9")
    async with distill(tmp_path) as client:
        await scored(client, [*week(FIRST_WEEK), *week(SECOND_WEEK), *replays, *repaired])
        job = await done(client, stage="drift", since=SINCE)
    assert job["counts"] == {"in": 122, "baseline": 42, "current": 40, "replays": 40, "outside": 0}
    assert job["drift"]["parameters"]["baseline_tasks"] == 41
    assert job["drift"]["parameters"]["current_tasks"] == 40


async def test_a_saved_profile_is_a_baseline_elsewhere(tmp_path: Path) -> None:
    later = list(week(SECOND_WEEK, rejected=30))
    direct = await compared(tmp_path / "one", [*week(FIRST_WEEK), *later], since=SINCE)
    async with distill(tmp_path / "build") as client:
        await scored(client, list(week(FIRST_WEEK)))
        job = await done(client, stage="drift", measure_only=True)
        assert "drift" not in job or job["drift"] is None
        (product,) = job["products"]
        name = product["name"].removeprefix("drift/")
        answer = await client.get(f"/v1/distill/drifts/{name}")
        assert answer.status_code == 200
        profile = answer.json()
    assert profile["kind"] == "stillhouse.drift_profile"
    drift = await compared(tmp_path / "next", later, profile=profile)
    assert outputs(drift) == outputs(direct)
    assert [one | {"distance": 0} for one in drift["inputs"]] == [
        one | {"distance": 0} for one in direct["inputs"]
    ]


async def test_the_same_comparison_is_the_same_file(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await scored(client, [*week(FIRST_WEEK), *week(SECOND_WEEK, rejected=9)])
        first = await done(client, stage="drift")
        second = await done(client, stage="drift")
        assert first["products"] == second["products"]
        assert first["receipt"] != second["receipt"]
        assert (await done(client, stage="audit"))["audit"]["outcome"] == "vouched"
    record = next((tmp_path / "drift").glob("????????????????.json"))
    assert orjson.loads(record.read_bytes()) == first["drift"]


async def test_without_windows_the_later_half_is_compared_with_the_earlier(tmp_path: Path) -> None:
    drift = await compared(tmp_path, [*week(FIRST_WEEK), *week(SECOND_WEEK)])
    assert drift["current"]["since"] == drift["baseline"]["until"] == "2026-11-09T00:00:00Z"
    assert drift["baseline"]["count"] == drift["current"]["count"] == 40


async def test_alerts_can_be_made_of_it(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await scored(client, [*week(FIRST_WEEK), *week(SECOND_WEEK, rejected=30)])
        await drifted(client, since=SINCE)
        told = (await client.get("/metrics")).text
    assert 'distill_drifted{what="category"} 2.0' in told
    assert 'distill_drifted{what="model"} 0.0' in told


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"since": "2026-11-09T00:00:00Z", "until": "2026-11-02T00:00:00Z"}, "until"),
        ({"since": SINCE, "baseline_until": "2026-11-12T00:00:00Z"}, "baseline_until"),
        ({"measure_only": True, "baseline_since": SINCE}, "baseline_since"),
        ({"alpha": 0}, "alpha"),
        ({"kind": "fill"}, "kind"),
        ({"profile": {"kind": "something"}}, "profile.kind"),
    ],
)
async def test_windows_that_make_no_sense_are_refused(
    tmp_path: Path, asked: dict[str, Any], param: str
) -> None:
    async with distill(tmp_path) as client:
        response = await client.post("/v1/distill/jobs", json={"stage": "drift", **asked})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_a_window_without_evidence_fails_by_name(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await scored(client, list(week(FIRST_WEEK)))
        job = await finished(client, stage="drift", since=SINCE)
    assert job["state"] == "failed"
    assert job["error"]["code"] == "window_empty"
    assert "current window" in job["error"]["message"]


async def test_it_needs_categories(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        job = await finished(client, stage="drift")
    assert job["error"]["code"] == "stage_missing"


@pytest.mark.parametrize("name", ["0123456789abcdef.json", "x", "0123456789abcdef.profile.json.tmp"])
async def test_there_are_no_other_files(tmp_path: Path, name: str) -> None:
    async with distill(tmp_path) as client:
        response = await client.get(f"/v1/distill/drifts/{name}")
    assert response.status_code == 404
