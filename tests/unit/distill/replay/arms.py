"""Recorded tasks, models that solve a known part of them, and a distill that does them again."""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx

from distill.app import create_app
from distill.backends import FakePeers
from distill.settings import Settings
from schemas.iterate import IterateAttempt, IterateRequest, IterateResponse, Outcome
from schemas.runs import ModelRef, Usage
from schemas.verdicts import Finding, RosterInfo, ValidatorInfo, Verdict, VerdictName
from services.testing import client_for
from tests.unit.distill.builders import Json, done, lines, run, send, verdict

MISSED = Finding(code="fill.count_short", severity="error", path="/fills", message="one is missing")
FRAME = "Answer with one JSON document of the kind fill and nothing else."


def task(name: str, *, role: str | None = None, ok: bool = True, **fields: Any) -> list[Json]:
    """A run of the repair loop, as chatd records it; rejected and repaired where it was not `ok` at once."""
    order = {"order": {"order_id": name}}
    said = {"kind": "fill", "context": order, "system_chars": len("Be exact."), "worker_ids": ["W-1"]}
    messages = [
        {"role": "system", "content": f"Be exact.\n\n{FRAME}"},
        {"role": "user", "content": f"Fill order {name}, which is at gate {name[::-1]}."},
    ]
    common: Json = {
        "episode_id": f"e-{name}",
        "task": {"kind": "fill", "key": name},
        "request": {"messages": messages},
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "cost_usd": 0.5},
        "retrieved_context": [text_of_role(role)] if role else [],
        **fields,
    }
    first = run(
        f"{name}-1",
        answer=f'Sure: {{"order": "{name}"}}' if ok else "no",
        verdict=verdict() if ok else verdict("rejected", "fill.count_short"),
        ext={"attempt": 1, "validate": said},
        **common,
    )
    if ok:
        return [first]
    ext = {"attempt": 2, "repair_of_run_id": f"{name}-1", "validate": said}
    return [first, run(f"{name}-2", answer=f'{{"order": "{name}"}}', verdict=verdict(), ext=ext, **common)]


def text_of_role(role: str) -> Json:
    text = f"{role} are scarce"
    return {
        "collection": "playbooks",
        "id": role,
        "role": role,
        "text": text,
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def judged(artifact: Any, *, policy: str = "1", ok: bool | None = None) -> Verdict:
    """Accepts every object."""
    fine = isinstance(artifact, dict) if ok is None else ok
    name: VerdictName = "accepted" if fine else "rejected"
    return Verdict(
        ok=fine,
        verdict=name,
        findings=[] if fine else [MISSED],
        kind="fill",
        validator=ValidatorInfo(name="fill", version="1", policy_version=policy),
        roster=RosterInfo(sha256="0" * 64, as_of="2026-11-02", rows=3),
        elapsed_ms=0.1,
    )


class Arms(FakePeers):
    """`small` solves three tasks of four, every second of them only at the second try; `strong` all."""

    def __init__(self, *, policy: str = "1") -> None:
        super().__init__(answer=self.solve, judge=lambda asked: judged(asked.artifact, policy=self.policy))
        self.policy = policy
        self.config = "c" * 64
        self.cost_usd: float | None = 0.1
        self.episodes: list[str] = []

    def solve(self, request: IterateRequest, episode_id: str) -> IterateResponse:
        self.episodes.append(episode_id)
        name = str(request.validate_.context["order"]["order_id"])  # type: ignore[index,call-overload] # JSON
        share = hashlib.sha256(name.encode()).digest()[0] % 4
        small = [False] * 2 if share == 0 else [False, True] if share == 1 else [True]
        models = [request.candidates[0]] * len(small)
        if not small[-1] and len(request.candidates) > 1:
            small, models = [*small, True], [*models, request.candidates[1]]
        tries = list(zip(models, small, strict=True))[: request.attempts_max]
        attempts = [
            self._attempt(model, f"{episode_id}-{number}", name, ok=ok)
            for number, (model, ok) in enumerate(tries)
        ]
        ok = tries[-1][1]
        return IterateResponse(
            ok=ok,
            artifact=attempts[-1].artifact,
            verdict=judged(None, policy=self.policy, ok=ok),
            outcome=_outcome(tries),
            attempts=attempts,
            episode_id=episode_id,
            config_hash=self.config,
        )

    def _attempt(self, model: str, run_id: str, name: str, *, ok: bool) -> IterateAttempt:
        provider, _, bare = model.rpartition("/")
        return IterateAttempt(
            model=model,
            artifact={"order": name} if ok else "no",
            findings=[] if ok else [MISSED],
            usage=Usage(prompt_tokens=20, completion_tokens=5, cost_usd=self.cost_usd),
            run_id=run_id,
            verdict="accepted" if ok else "rejected",
            served_by=ModelRef(provider=provider or "ollama", name=bare, digest=f"sha256:{bare}"),
            latency_ms=4.0,
        )


def _outcome(tries: list[tuple[str, bool]]) -> Outcome:
    if not tries[-1][1]:
        return "failed"
    if len(tries) == 1:
        return "first_pass"
    return "repaired" if tries[-1][0] == tries[0][0] else "escalated"


@contextlib.asynccontextmanager
async def recorded(
    data: Path, peers: FakePeers, records: Iterable[Json] = (), **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A distill that has made evidence of `records`, and asks `peers`."""
    app = create_app(Settings(data=data, **settings), peers=lambda: peers)
    async with client_for(app) as client:
        if sent := list(records):
            await send(client, sent)
            await done(client, stage="materialize")
            await done(client, stage="score")
        yield client


def orders(count: int, **fields: Any) -> list[Json]:
    return [one for number in range(count) for one in task(f"O-{number:04}", **fields)]


def folder(data: Path, replay_id: str) -> Mapping[str, bytes]:
    """The files of a finished replay."""
    paths = (data / "replays" / replay_id).iterdir()
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def results(data: Path, replay_id: str) -> list[Json]:
    return lines(data / "replays" / replay_id / "tasks.jsonl")
