"""Recorded tasks done again: what is asked, what is recorded, and what it may cost."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from schemas.iterate import IterateRequest, IterateResponse
from schemas.replay import Replay, ReplayManifest
from services.errors import InvalidRequest, PlatformError, Unavailable, UpstreamError
from tests.unit.distill.builders import Json, done, evidence, finished, run, verdict, verdict_record
from tests.unit.distill.replay.arms import Arms, folder, orders, recorded, results, task

pytestmark = pytest.mark.anyio

SMALL = {"stage": "replay", "models": ["ollama/small"]}
BOTH = {"stage": "replay", "models": ["ollama/small", "openai/strong"]}


def manifest_in(data: Path, job: Json) -> ReplayManifest:
    return ReplayManifest.model_validate_json(folder(data, job["replay_id"])["manifest.json"])


async def test_every_task_is_put_to_the_models_as_its_caller_put_it(tmp_path: Path) -> None:
    peers = Arms()
    records = [*orders(7), *task("O-repaired", ok=False), *task("O-noted", role="welder")]
    async with recorded(tmp_path, peers, records) as client:
        job = await done(client, **BOTH, attempts_max=4, temperature=0.5, seed=7)
    assert job["counts"]["in"] == 9 == sum(job["counts"].values()) - 9
    asked = next(one for one in peers.asked if "O-repaired" in str(one.messages[1].content))
    assert [message.content for message in asked.messages] == [
        "Be exact.",
        "Fill order O-repaired, which is at gate deriaper-O.",
    ]
    assert (asked.candidates, asked.attempts_max) == (BOTH["models"], 4)
    assert (asked.temperature, asked.seed) == (0.5, 7)
    assert asked.validate_.context == {"order": {"order_id": "O-repaired"}}
    assert asked.notes == []
    (given,) = next(one.notes for one in peers.asked if "O-noted" in str(one.messages[1].content))
    assert (given.collection, given.text, given.worker_id) == ("playbooks", "welder are scarce", "W-1")
    assert all(episode.startswith("replay.") for episode in peers.episodes)
    assert len(set(peers.episodes)) == 9


async def test_a_record_says_all_that_was_tried(tmp_path: Path) -> None:
    async with recorded(tmp_path, Arms(), orders(24)) as client:
        job = await done(client, **BOTH)
        listed = (await client.get("/v1/distill/replays")).json()["replays"]
        path = f"/v1/distill/replays/{job['replay_id']}/files"
        fetched = await client.get(f"{path}/tasks.jsonl")
        missing = await client.get(f"{path}/plan.json")
    records = [Replay.model_validate(one) for one in results(tmp_path, job["replay_id"])]
    tally = Counter(record.outcome for record in records)
    assert set(tally) == {"local_pass", "local_repaired", "escalated_pass"}
    escalated = next(record for record in records if record.outcome == "escalated_pass")
    assert [(one.model.name, one.verdict, one.codes) for one in escalated.attempts] == [
        ("small", "rejected", ["fill.count_short"]),
        ("small", "rejected", ["fill.count_short"]),
        ("strong", "accepted", []),
    ]
    assert escalated.usage.cost_usd == pytest.approx(0.3)
    assert escalated.text == orjson.dumps({"order": escalated.task.key if escalated.task else ""}).decode()
    assert [one.evidence_id for one in records] == sorted(one["evidence_id"] for one in evidence(tmp_path))
    manifest = manifest_in(tmp_path, job)
    assert listed == [manifest.model_dump(mode="json")]
    assert manifest.fingerprint["models"] == "ollama/small@sha256:small, openai/strong@sha256:strong"
    assert manifest.fingerprint["policy"] == "fill 1, policy 1"
    assert manifest.fingerprint["roster"] == "0" * 64
    calls = sum(len(record.attempts) for record in records)
    assert manifest.spent == {"calls": calls, "tokens": 25 * calls, "cost_usd": calls / 10}
    assert fetched.content == folder(tmp_path, job["replay_id"])["tasks.jsonl"]
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "file_not_found")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"role": "welder"}, {"O-welder"}),
        ({"category": "accepted"}, {"O-plain", "O-welder", "O-old", "O-repaired"}),
        ({"category": "rejected"}, {"O-hopeless"}),
        ({"until": "2026-11-01T00:00:00Z"}, {"O-old"}),
        ({"since": "2026-11-01T00:00:00Z", "role": "welder"}, {"O-welder"}),
        ({"kind": "sms"}, set()),
    ],
)
async def test_tasks_are_chosen_by_what_is_known_of_them(
    tmp_path: Path, options: dict[str, Any], expected: set[str]
) -> None:
    hopeless = task("O-hopeless")[0] | {"verdict": verdict("rejected", "fill.underage")}
    records = [
        *task("O-plain"),
        *task("O-welder", role="welder"),
        *task("O-old", ts="2026-10-02T10:00:00Z"),
        *task("O-repaired", ok=False),
        hopeless,
    ]
    async with recorded(tmp_path, Arms(), records) as client:
        job = await finished(client, **SMALL, **options)
    if not expected:
        assert job["error"]["code"] == "nothing_to_replay"
    else:
        assert {one["task"]["key"] for one in results(tmp_path, job["replay_id"])} == expected


async def test_a_limit_draws_a_sample_that_is_the_same_each_time_and_grows(tmp_path: Path) -> None:
    async with recorded(tmp_path, Arms(), orders(30)) as client:
        few = await done(client, **SMALL, limit=5)
        more = await done(client, **SMALL, limit=10)
        named = [one["evidence_id"] for one in results(tmp_path, few["replay_id"])]
        by_id = await done(client, **SMALL, evidence_ids=named)
        like = await done(client, **BOTH, like=few["replay_id"])
    ids = [
        {one["evidence_id"] for one in results(tmp_path, job["replay_id"])}
        for job in (few, more, by_id, like)
    ]
    assert len(ids[0]) == 5
    assert ids[0] < ids[1]
    assert ids[0] == ids[2] == ids[3]


async def test_runs_of_a_replay_are_no_tasks(tmp_path: Path) -> None:
    again = task("O-again")[0] | {"episode_id": "replay.0123"}
    async with recorded(tmp_path, Arms(), [*task("O-1"), again]) as client:
        job = await done(client, **SMALL)
    assert job["counts"]["in"] == 1


async def test_a_task_nobody_knows_how_to_judge_is_left_out_by_name(tmp_path: Path) -> None:
    unknown = run("unknown", task={"kind": "fill", "key": "O-2"}, verdict=verdict())
    with_tools = task("O-3")[0]
    with_tools["request"] = {**with_tools["request"], "tools": [{"type": "function"}]}
    told = run("told", task={"kind": "fill", "key": "O-4"})
    said = verdict_record("told") | {
        "ext": {"validate": {"kind": "fill", "context": {"order": {"order_id": "O-4"}}}}
    }
    async with recorded(tmp_path, Arms(), [*task("O-1"), unknown, with_tools, told, said]) as client:
        job = await done(client, **SMALL)
    assert manifest_in(tmp_path, job).left_out == {"context_unknown": 1, "has_tools": 1}
    assert {one["task"]["key"] for one in results(tmp_path, job["replay_id"])} == {"O-1", "O-4"}
    left = [
        orjson.loads(line) for line in folder(tmp_path, job["replay_id"])["quarantine.jsonl"].splitlines()
    ]
    assert {one["reason"] for one in left} == {"context_unknown", "has_tools"}
    assert all(one["source"]["segment"] for one in left)


async def test_what_is_odd_in_a_record_costs_its_task_and_no_other(tmp_path: Path) -> None:
    """No messages where some of the first were the caller's, and a kind without a name."""
    empty = task("O-2")[0]
    empty["request"] = {"messages": []}
    nameless = task("O-3")[0]
    nameless["ext"]["validate"]["kind"] = ""
    async with recorded(tmp_path, Arms(), [*task("O-1"), empty, nameless]) as client:
        job = await done(client, **SMALL)
    assert manifest_in(tmp_path, job).left_out == {"context_unknown": 1, "messages_empty": 1}
    assert len(results(tmp_path, job["replay_id"])) == 1


async def test_a_replay_without_a_single_result_has_failed(tmp_path: Path) -> None:
    unknown = run("unknown", task={"kind": "fill", "key": "O-2"}, verdict=verdict())
    async with recorded(tmp_path, Arms(), [unknown]) as client:
        job = await finished(client, **SMALL)
        listed = (await client.get("/v1/distill/replays")).json()["replays"]
    assert (job["error"]["code"], listed) == ("nothing_replayed", [])
    assert "1 × context_unknown" in job["error"]["message"]


async def test_recorded_answers_are_judged_by_todays_rules(tmp_path: Path) -> None:
    peers = Arms(policy="2")
    async with recorded(tmp_path, peers, [*orders(3), *task("O-repaired", ok=False)]) as client:
        job = await done(client, stage="replay", recorded=True)
    records = {one["task"]["key"]: one for one in results(tmp_path, job["replay_id"])}
    assert not peers.asked
    assert {"order": "O-0000"} in [one.artifact for one in peers.judged]  # chatter and all, as chatd reads it
    assert records["O-0001"]["outcome"] == "local_pass"
    assert records["O-repaired"]["outcome"] == "local_repaired"
    assert records["O-repaired"]["attempts"][0]["run_id"] == "O-repaired-1"
    manifest = manifest_in(tmp_path, job)
    assert (manifest.name, manifest.mode, manifest.arm.recorded) == ("recorded", "recorded", True)
    assert manifest.fingerprint["policy"] == "fill 1, policy 2"


async def test_repeats_of_a_task_have_episodes_and_seeds_of_their_own(tmp_path: Path) -> None:
    peers = Arms()
    async with recorded(tmp_path, peers, orders(2)) as client:
        job = await done(client, **SMALL, repeats=3, seed=5)
    assert [one["repeat"] for one in results(tmp_path, job["replay_id"])] == [0, 1, 2, 0, 1, 2]
    assert Counter(one.seed for one in peers.asked) == {5: 2, 6: 2, 7: 2}
    assert len(set(peers.episodes)) == 6


# --- budgets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_no_more_calls_are_made_than_were_allowed(tmp_path: Path, concurrency: int) -> None:
    async with recorded(tmp_path, Arms(), orders(30)) as client:
        job = await done(client, **SMALL, budget_calls=11, concurrency=concurrency, attempts_max=3)
    manifest = manifest_in(tmp_path, job)
    assert manifest.spent["calls"] is not None
    assert 9 <= manifest.spent["calls"] <= 11
    assert manifest.left_out == {"budget": 30 - len(results(tmp_path, job["replay_id"]))}


async def test_a_larger_budget_lets_the_rest_be_done(tmp_path: Path) -> None:
    peers = Arms()
    async with recorded(tmp_path, peers, orders(10)) as client:
        job = await done(client, **SMALL, budget_calls=8)
        first = folder(tmp_path, job["replay_id"])
        assert folder(tmp_path, (await done(client, **SMALL, budget_calls=8))["replay_id"]) == first
        assert (tmp_path / "replays" / job["replay_id"] / "journal").exists()
        job = await done(client, **SMALL)
        assert job["counts"]["quarantined"] == 0
        assert len(peers.asked) == 10
        assert not (tmp_path / "replays" / job["replay_id"] / "journal").exists()
        await done(client, **SMALL)
    assert len(peers.asked) == 20


async def test_tokens_and_money_end_a_replay_too(tmp_path: Path) -> None:
    async with recorded(tmp_path, Arms(), orders(20)) as client:
        tokens = await done(client, **SMALL, budget_tokens=100, concurrency=1, name="tokens")
        money = await done(client, **SMALL, budget_usd=0.4, concurrency=1, name="money")
    for job in (tokens, money):
        spent = manifest_in(tmp_path, job).spent
        assert spent["calls"] in (4, 5)


async def test_a_budget_that_cannot_be_measured_is_an_error(tmp_path: Path) -> None:
    peers = Arms()
    peers.cost_usd = None
    async with recorded(tmp_path, peers, orders(5)) as client:
        job = await finished(client, **SMALL, budget_usd=1.0)
    assert job["error"]["code"] == "budget_not_measurable"
    assert "budget_calls" in job["error"]["message"]


# --- failures -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.engine.replay.run.PAUSE_S", 0.0)


class Failing(Arms):
    """Fails on the orders that `fail` says, until told otherwise."""

    def __init__(self, error: PlatformError, *names: str) -> None:
        super().__init__()
        self.error = error
        self.names = names

    def solve(self, request: IterateRequest, episode_id: str) -> IterateResponse:
        if any(name in str(request.messages) for name in self.names):
            raise self.error
        return super().solve(request, episode_id)


async def test_a_refused_task_is_left_out_and_the_others_are_done(tmp_path: Path) -> None:
    peers = Failing(InvalidRequest("too long", code="context_length_exceeded"), "O-0002")
    async with recorded(tmp_path, peers, orders(4)) as client:
        job = await done(client, **SMALL)
    assert manifest_in(tmp_path, job).left_out == {"refused.context_length_exceeded": 1}
    assert job["counts"]["quarantined"] == 1


async def test_a_daemon_that_is_down_stops_the_replay_and_it_goes_on_later(tmp_path: Path) -> None:
    peers = Failing(Unavailable("chatd does not answer", code="chatd_down"), "O-0007")
    async with recorded(tmp_path, peers, orders(12)) as client:
        job = await finished(client, **SMALL, concurrency=1)
        assert job["error"]["code"] == "chatd_down"
        peers.names = ()
        job = await done(client, **SMALL)
    assert job["counts"]["in"] == 12
    assert len(peers.asked) == 12 + 3  # one task was tried in vain


async def test_a_provider_that_fails_every_task_stops_the_replay(tmp_path: Path) -> None:
    peers = Failing(UpstreamError("broken", code="upstream_failed"), "O-")
    async with recorded(tmp_path, peers, orders(12)) as client:
        job = await finished(client, **SMALL, concurrency=1)
    assert job["error"]["code"] == "upstream_failed"
    assert len(peers.asked) == 5 * 3


@pytest.mark.parametrize("what", ["policy", "config"])
async def test_what_changes_in_the_middle_is_no_single_replay(tmp_path: Path, what: str) -> None:
    class Changing(Arms):
        def solve(self, request: IterateRequest, episode_id: str) -> IterateResponse:
            if len(self.asked) == 6:
                setattr(self, what, "9")
            return super().solve(request, episode_id)

    async with recorded(tmp_path, Changing(), orders(10)) as client:
        job = await finished(client, **SMALL)
        assert job["error"]["code"] == "replay_mixed"
        again = await finished(client, **SMALL)
        assert again["error"]["code"] == "replay_mixed"
        await done(client, **SMALL, fresh=True)


async def test_an_unfinished_replay_is_not_taken_for_another(tmp_path: Path) -> None:
    peers = Failing(Unavailable("chatd does not answer", code="chatd_down"), "O-0003")
    async with recorded(tmp_path, peers, orders(5)) as client:
        await finished(client, **SMALL, name="mine")
        other = await finished(client, **BOTH, name="mine")
        assert other["error"]["code"] == "replay_unfinished"
        peers.names = ()
        await done(client, **BOTH, name="mine", fresh=True)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({}, "models"),
        ({"models": ["a"], "recorded": True}, "models"),
        ({"recorded": True, "contexts": 2}, "recorded"),
        ({"models": ["a", "b"], "attempts_max": 1}, "attempts_max"),
        ({"models": ["a"], "concurrency": 65}, "concurrency"),
        ({"models": ["a"], "budget_calls": 2}, "budget_calls"),
        ({"models": ["a"], "split": "holdout"}, "split"),
        ({"models": ["a"], "name": "../x"}, "name"),
        ({"models": ["a"], "cassette": "../x"}, "cassette"),
        ({"models": ["a"], "target": "openai"}, "target"),
    ],
)
async def test_what_makes_no_sense_is_refused_at_once(
    tmp_path: Path, options: dict[str, Any], param: str
) -> None:
    async with recorded(tmp_path, Arms()) as client:
        response = await client.post("/v1/distill/jobs", json={"stage": "replay", **options})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_an_audit_vouches_for_what_a_replay_left(tmp_path: Path) -> None:
    async with recorded(tmp_path, Arms(), orders(3)) as client:
        job = await done(client, **SMALL)
        assert job["receipt"]["file"].endswith("replay.dsse.json")
        await done(client, **SMALL, name="another")
        await done(client, stage="audit", all=True)
        tasks = tmp_path / "replays" / job["replay_id"] / "tasks.jsonl"
        tasks.write_bytes(tasks.read_bytes().replace(b"local_pass", b"local_lass"))
        broken = await finished(client, stage="audit", all=True)
    assert broken["error"]["code"] == "audit_failed"
