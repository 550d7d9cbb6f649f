"""Records as a client would send them, and the few steps that most stories share."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx
import orjson

from distill.app import create_app
from distill.backends import Disk
from distill.settings import Settings
from services.testing import client_for

Json = dict[str, Any]


def verdict(name: str = "accepted", *codes: str) -> Json:
    return {
        "ok": name == "accepted",
        "verdict": name,
        "findings": [
            {"code": code, "severity": "error", "path": "/x", "message": "masked"} for code in codes
        ],
        "kind": "fill",
        "validator": {"name": "fill", "version": "1", "policy_version": "1"},
        "elapsed_ms": 1.5,
    }


def run(run_id: str, *, question: str | None = None, answer: str | None = None, **fields: Any) -> Json:
    return {
        "schema": "stillhouse.run",
        "schema_version": "1.0",
        "run_id": run_id,
        "ts": "2026-11-02T10:00:00Z",
        "request": {"messages": [{"role": "user", "content": question or f"question {run_id}"}]},
        "model": {"provider": "ollama", "name": "tiny"},
        "output": {"content": answer or f"answer {run_id}", "finish_reason": "stop"},
        **fields,
    }


def verdict_record(
    run_id: str, name: str = "accepted", *codes: str, ts: str = "2026-11-02T10:00:01Z"
) -> Json:
    return {
        "schema": "stillhouse.verdict",
        "schema_version": "1.0",
        "run_id": run_id,
        "ts": ts,
        "verdict": verdict(name, *codes),
    }


def episode(name: str, *, code: str = "fill.underage") -> list[Json]:
    """A rejected draft and the accepted repair of it, as the iterating daemon records them."""
    draft = run(
        f"{name}-1",
        question=f"fill {name}",
        answer="bad",
        episode_id=name,
        task={"kind": "fill", "key": name},
        verdict=verdict("rejected", code),
        ext={"attempt": 1},
    )
    repair = run(
        f"{name}-2",
        answer="good",
        episode_id=name,
        task={"kind": "fill", "key": name},
        verdict=verdict(),
        ext={"attempt": 2, "repair_of_run_id": f"{name}-1"},
    )
    repair["request"]["messages"] = [
        *draft["request"]["messages"],
        {"role": "assistant", "content": "bad"},
        {"role": "user", "content": f"{code}: mend it"},
    ]
    return [draft, repair]


def ndjson(records: Iterable[Json]) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def settings_for(data: Path, **changes: Any) -> Settings:
    return Settings(data=data, **changes)


@contextlib.asynccontextmanager
async def distill(
    data: Path, *, disk: Disk | None = None, **changes: Any
) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(create_app(settings_for(data, **changes), disk=disk)) as client:
        yield client


async def send(client: httpx.AsyncClient, records: Iterable[Json]) -> Json:
    response = await client.post(
        "/v1/runs", content=ndjson(records), headers={"content-type": "application/x-ndjson"}
    )
    assert response.status_code == 200, response.text
    return dict(response.json())


async def finished(client: httpx.AsyncClient, **request: Any) -> Json:
    """Run a job to its end and return how it ended."""
    response = await client.post("/v1/distill/jobs", json=request)
    assert response.status_code == 202, response.text
    while True:
        job = (await client.get(f"/v1/distill/jobs/{response.json()['job_id']}")).json()
        if job["state"] in ("done", "failed"):
            return dict(job)
        await asyncio.sleep(0.005)


async def done(client: httpx.AsyncClient, **request: Any) -> Json:
    job = await finished(client, **request)
    assert job["state"] == "done", job
    return job


async def chain(client: httpx.AsyncClient, kind: str) -> Json:
    """Everything from the log to a dataset of this kind."""
    await done(client, stage="materialize")
    await done(client, stage="score")
    target = "stillhouse" if kind == "rag" else "openai"
    return await done(client, stage="export", kind=kind, target=target)


def evidence(data: Path) -> list[Json]:
    """All evidence, in the order of ids."""
    return sorted(stored(data, "evidence"), key=lambda one: str(one["evidence_id"]))


def stored(data: Path, kind: str) -> list[Json]:
    """What lies in the shards of a kind: `evidence`, `scored` or `quarantine`."""
    return [record for path in sorted((data / "distill" / kind).glob("*.jsonl")) for record in lines(path)]


def lines(path: Path) -> list[Json]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]
