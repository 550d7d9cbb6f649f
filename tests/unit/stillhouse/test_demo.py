"""What the demo asks of its model, and how it tells what earlier work was worth."""

import io
import re
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from rich.console import Console

from schemas.comparison import Comparison
from schemas.distill import Job
from schemas.replay import Replay, ReplayAttempt
from schemas.runs import ModelRef
from schemas.verdicts import Finding
from stillhouse.client import GatewayClient
from stillhouse.demo import prompts
from stillhouse.demo.account import Account
from stillhouse.demo.learning import learn
from stillhouse.settings import CliSettings
from stillhouse.world import Spec, generate

WORKER = {"first_name": "Ann", "phone": "+12025550100"}


def draft(body: str, **more: Any) -> dict[str, Any]:
    return {"kind": "sms", "artifact": {"to": "+1", "body": body}, "context": {}, "defect": None, **more}


@pytest.mark.parametrize(
    ("made", "purpose"),
    [
        (
            draft("Hi Ann, can you work Friday at 06:00? Reply YES or NO."),
            "can they work on Friday at 06:00?",
        ),
        (
            draft("Hi Ann, reminder from N: Friday 06:00, Gary."),
            "remind them of their shift on Friday at 06:00.",
        ),
        (draft("Hi Ann, N here. Reply STOP to opt out."), "say who we are, and that STOP ends the messages."),
        (draft("Hi Ann, please call the branch today."), "ask them to call the branch."),
        (
            draft("Hi Ann, ask for <X>.", defect="content.placeholder"),
            "tell them whom to ask for at the site.",
        ),
    ],
)
def test_a_draft_tells_what_it_was_for(made: dict[str, Any], purpose: str) -> None:
    asked = prompts.draft_messages(made, WORKER)[-1]["content"]
    assert asked == f"Write to Ann at +12025550100: {purpose}"


def test_every_text_of_the_world_can_be_asked_for() -> None:
    for message in generate(Spec(workers=200, orders=1, messages=240)).messages:
        made = {
            "kind": message.kind, "artifact": message.artifact, "context": message.context,
            "defect": message.defect,
        }  # fmt: skip
        asked = prompts.draft_messages(made, WORKER)[-1]["content"]
        assert "{" not in asked or message.kind == "email"


def record(number: int, context: list[str]) -> Replay:
    return Replay(
        replay_id="demo-with-context",
        ts=datetime(2026, 11, 2, tzinfo=UTC),
        evidence_id=f"{number:064x}",
        group="g",
        episode_id="e",
        mode="live",
        outcome="failed",
        attempts=[ReplayAttempt(run_id="r", model=ModelRef(provider="p", name="m"))],
        context=context,
        findings=[Finding(code="content.placeholder", severity="error", path="/body", message="x")] * number,
        config_hash="0" * 64,
    )


def arm(name: str, passed: int) -> dict[str, Any]:
    rate = {"rate": passed / 3, "interval": (0.06, 0.94), "tasks_effective": 3}
    return {
        "replay_id": name,
        "name": name,
        "tasks": 3,
        "own": rate,
        "any": rate,
        "outcomes": {},
        "repeats_max": 1,
        "cost_usd": None,
    }


def compared() -> Comparison:
    quality = {"tasks": 3, "groups": 3, "groups_discordant": 1, "better": 1, "worse": 0}
    difference = {
        "difference": 1 / 3,
        "interval": (-0.4, 0.8),
        "p": 1.0,
        "mcnemar_p": 1.0,
        "detectable": None,
    }
    return Comparison.model_validate(
        {
            "comparison_id": "0123456789abcdef",
            "verdict": "no evidence",
            "reason": "1 of 3 groups differ",
            "confidence": 0.95,
            "counting": "own",
            "independent": "group",
            "seed": 0,
            "resamples": 10,
            "baseline": arm("demo-without-context", 1),
            "current": arm("demo-with-context", 2),
            "quality": quality | difference,
            "measures": [],
            "changes": [],
            "notes": [],
            "counts": {},
            "better": [],
            "worse": [],
            "only_baseline": [],
            "only_current": [],
            "listed_max": 100,
        }
    )


def test_the_loop_is_told_with_its_honest_verdict() -> None:
    lines = b"".join(record(number, ["x"] if number else []).to_line() for number in range(3))
    asked: list[dict[str, object]] = []

    def job(**body: object) -> Job:
        asked.append(body)
        comparison = compared() if body["stage"] == "compare" else None
        made = {"job_id": "j", "stage": body["stage"], "state": "done", "progress": 1.0}
        return Job.model_validate({**made, "counts": {"sent": 7}, "comparison": comparison})

    def answer(request: httpx.Request) -> httpx.Response:
        assert re.fullmatch("/v1/distill/replays/demo-with(out)?-context/files/tasks.jsonl", request.url.path)
        return httpx.Response(200, content=lines)

    out = io.StringIO()
    with GatewayClient(CliSettings(), transport=httpx.MockTransport(answer)) as gateway:
        account = Account(Console(file=out, width=200))
        learn(gateway, account, job, chat_model="tiny", embed_model="words")
    assert [one["stage"] for one in asked] == ["index", "replay", "replay", "compare"]
    without, with_ = asked[1], asked[2]
    assert with_["like"] == without["name"]
    assert "contexts" not in without
    said = out.getvalue()
    for part in (
        "7 accepted answers",
        "2 of 3 tasks were given",
        "1 of 3 pass",
        "2 of 3 pass",
        "no evidence",
    ):
        assert part in said
