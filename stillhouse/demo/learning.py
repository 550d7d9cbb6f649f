"""The last part of the demo: past work helps the same small model with other tasks, or it does not."""

from collections import Counter
from typing import Final, Protocol

from schemas.comparison import Arm, Comparison
from schemas.distill import Job
from schemas.replay import Replay
from services.errors import UpstreamError
from stillhouse.client import GatewayClient
from stillhouse.demo.account import Account

COLLECTION: Final = "demo-distilled"
TASKS: Final = 10
CONTEXTS: Final = 2
FINDINGS_SHOWN: Final = 3
WITHOUT, WITH = "demo-without-context", "demo-with-context"
KIND: Final = "sms"
"""Texts are the shortest of what the sample world has drafts of."""


class RunJob(Protocol):
    """Runs a stage to its end; raises `PlatformError` when it fails."""

    def __call__(self, **body: object) -> Job: ...


def learn(
    gateway: GatewayClient, account: Account, job: RunJob, *, chat_model: str, embed_model: str
) -> None:
    """Index what was accepted, do some tasks again without and with it, and say what the difference is."""
    account.step(f"Learn: earlier work as context for {chat_model}, and what it is worth")
    indexed = job(stage="index", collection=COLLECTION, embed_model=embed_model).counts
    account.say(f"index: {indexed['sent']} accepted answers, to be found by tasks of other groups")
    arm = {"models": [chat_model], "attempts_max": 1, "temperature": 0.0, "concurrency": 2, "fresh": True}
    job(stage="replay", name=WITHOUT, kind=KIND, limit=TASKS, **arm)
    job(stage="replay", name=WITH, like=WITHOUT, contexts=CONTEXTS, collection=COLLECTION, **arm)
    without, with_ = _records(gateway, WITHOUT), _records(gateway, WITH)
    _say_contexts(account, with_)
    compared = job(stage="compare", baseline=WITHOUT, current=WITH).comparison
    if compared is None:
        raise UpstreamError("the comparison says nothing")
    _say_arm(account, "without", compared.baseline, without)
    _say_arm(account, "with", compared.current, with_)
    _say_comparison(account, compared)


def _records(gateway: GatewayClient, replay_id: str) -> list[Replay]:
    content = b"".join(gateway.download(f"/v1/distill/replays/{replay_id}/files/tasks.jsonl"))
    return [Replay.model_validate_json(line) for line in content.splitlines()]


def _say_contexts(account: Account, records: list[Replay]) -> None:
    given = sum(bool(one.context) for one in records)
    account.say(
        f"{given} of {len(records)} tasks were given earlier work, none of it of the task's own order,"
        " episode or near duplicates"
    )


def _say_arm(account: Account, what: str, arm: Arm, records: list[Replay]) -> None:
    low, high = arm.own.interval
    passed = round(arm.own.rate * arm.tasks)
    found = Counter(code for one in records for code in {finding.code for finding in one.findings})
    most = sorted(found.items(), key=lambda one: (-one[1], one[0]))[:FINDINGS_SHOWN]
    often = ", ".join(f"{code} ({count})" for code, count in most)
    account.say(
        f"{what:>7}: {passed} of {arm.tasks} pass ({arm.own.rate:.0%}, between {low:.0%} and {high:.0%})"
        f"{f'; found most: {often}' if often else ''}"
    )


def _say_comparison(account: Account, compared: Comparison) -> None:
    quality = compared.quality
    low, high = quality.interval
    account.say(
        f"difference {quality.difference:+.0%}, {compared.confidence:.0%} interval {low:+.0%} to {high:+.0%},"
        f" p = {quality.p:.2f}"
    )
    style = {"better": "green", "worse": "yellow"}.get(compared.verdict)
    account.say(f"verdict: {compared.verdict}. {compared.reason}", style=style)
    account.say(f"side by side: GET /v1/distill/comparisons/{compared.comparison_id}/files/report.html")
