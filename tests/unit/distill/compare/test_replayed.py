"""Comparisons of replays as they are really made: by models that solve a known part of recorded tasks."""

from pathlib import Path

import pytest

from distill.engine.audit import AuditOptions, audit
from distill.engine.progress import Progress
from tests.unit.distill.builders import Json, done, finished
from tests.unit.distill.replay.arms import Arms, orders, recorded

pytestmark = pytest.mark.anyio

SMALL: Json = {"stage": "replay", "models": ["ollama/small"], "name": "small"}
STRONG: Json = {"stage": "replay", "models": ["openai/strong"], "name": "strong"}
BOTH: Json = {
    "stage": "replay",
    "models": ["ollama/small", "openai/strong"],
    "attempts_max": 4,
    "name": "both",
}


def changed(job: Json) -> set[str]:
    return {change["what"] for change in job["comparison"]["changes"] if change["changed"]}


async def test_a_small_model_is_held_against_the_recorded_answers(tmp_path: Path) -> None:
    async with recorded(tmp_path, Arms(), orders(40)) as client:
        await done(client, **SMALL)
        await done(client, stage="replay", recorded=True, like="small", name="small.recorded")
        asked = {"stage": "compare", "current": "small", "gate": "not worse at 95 %"}
        alike = await finished(client, **asked)
        job = await finished(client, **asked, independent="work")
    assert alike["comparison"]["quality"]["groups"] == 1  # all orders are worded the same way
    assert alike["comparison"]["verdict"] == "no evidence"
    made = job["comparison"]
    assert (job["state"], job["error"]["code"]) == ("failed", "gate_failed")
    assert made["verdict"] == "worse"
    assert made["counts"] == {"in": 40, "paired": 40, "only_baseline": 0, "only_current": 0}
    assert made["baseline"]["own"]["rate"] == 1
    assert made["quality"]["worse"] == made["current"]["outcomes"]["failed"] == len(made["worse"])
    assert "models" in changed(job)
    assert "policy" not in changed(job)
    assert all(task["current_codes"] == ["fill.count_short"] for task in made["worse"])


async def test_escalation_pays_where_it_is_counted(tmp_path: Path) -> None:
    async with recorded(tmp_path, Arms(), orders(40)) as client:
        await done(client, **SMALL)
        await done(client, **BOTH)
        asked = {"stage": "compare", "baseline": "small", "current": "both", "independent": "work"}
        own = await done(client, **asked)
        other = await done(client, **asked, counting="any")
    assert own["comparison"]["verdict"] == "no evidence"
    assert other["comparison"]["verdict"] == "better"
    (latency, cost) = other["comparison"]["measures"]
    assert (latency["measure"], cost["measure"]) == ("latency_ms", "cost_usd")
    assert other["comparison"]["current"]["cost_usd"] > other["comparison"]["baseline"]["cost_usd"]


async def test_a_replay_under_another_policy_cannot_be_the_baseline(tmp_path: Path) -> None:
    peers = Arms()
    async with recorded(tmp_path, peers, orders(12)) as client:
        await done(client, **SMALL)
        peers.policy = "2"
        await done(client, **SMALL | {"name": "later"})
        job = await finished(client, stage="compare", baseline="small", current="later")
        assert job["error"]["code"] == "policies_differ"
        asked = {"stage": "compare", "baseline": "small", "current": "later", "across_policies": True}
        assert changed(await done(client, **asked)) == {"policy"}


async def test_a_comparison_is_vouched_for(tmp_path: Path) -> None:
    async with recorded(tmp_path, Arms(), orders(12)) as client:
        await done(client, **SMALL)
        await done(client, **BOTH)
        job = await done(client, stage="compare", baseline="small", current="both")
        await done(client, stage="compare", baseline="both", current="small")
        assert "compare" in job["receipt"]["file"]
        options = AuditOptions(sample=None, seed=0)
        assert audit(tmp_path, options, Progress()).outcome == "vouched"
        await done(client, **SMALL | {"fresh": True, "limit": 6})  # a replay that was read is made anew
        assert audit(tmp_path, options, Progress()).outcome == "vouched"
        report = tmp_path / "comparisons" / job["comparison"]["comparison_id"] / "comparison.json"
        report.write_bytes(report.read_bytes().replace(b"no evidence", b"better"))
        (finding,) = audit(tmp_path, options, Progress()).findings
    assert (finding.code, finding.file) == ("product_differs", report.relative_to(tmp_path).as_posix())
