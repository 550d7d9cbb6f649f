"""The daemon as its callers have it: cases go in as NDJSON, verdicts come out."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from services.testing import client_for
from tests.mutation.cases import Case
from validators.app import create_app
from validators.settings import Settings

Json = dict[str, Any]
NDJSON = {"content-type": "application/x-ndjson"}
BATCH = 500


def request(case: Case) -> Json:
    return {"kind": case.kind, "artifact": case.artifact, "context": case.context}


def judge(roster: Path, cases: Sequence[Case]) -> list[Json]:
    """The answer to each case, in order."""
    return asyncio.run(_judge(roster, [request(case) for case in cases]))


async def _judge(roster: Path, requests: Sequence[Json]) -> list[Json]:
    answers: list[Json] = []
    async with client_for(create_app(Settings(roster=roster))) as client:
        for at in range(0, len(requests), BATCH):
            lines = b"\n".join(map(orjson.dumps, requests[at : at + BATCH]))
            answer = await client.post("/v1/validate/batch", content=lines, headers=NDJSON)
            assert answer.status_code == 200, answer.text
            answers += [orjson.loads(line) for line in answer.content.splitlines()]
    assert len(answers) == len(requests)
    return answers


def judge_singly(roster: Path, cases: Sequence[Case]) -> list[Json]:
    """The same through `POST /v1/validate`."""

    async def ask() -> list[Json]:
        async with client_for(create_app(Settings(roster=roster))) as client:
            return [(await client.post("/v1/validate", json=request(case))).json() for case in cases]

    return asyncio.run(ask())


def listed(roster: Path) -> dict[str, list[Json]]:
    """The codes of each kind, as the daemon lists them."""

    async def ask() -> dict[str, list[Json]]:
        async with client_for(create_app(Settings(roster=roster))) as client:
            kinds = (await client.get("/v1/validators")).json()["validators"]
            return {kind["kind"]: kind["codes"] for kind in kinds}

    return asyncio.run(ask())
