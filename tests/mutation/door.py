"""The daemon as its callers have it: cases go in as NDJSON, verdicts come out."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import orjson

from services.testing import client_for
from tests.mutation.cases import Case
from validators.app import create_app
from validators.settings import Settings

Json = dict[str, Any]
Result = TypeVar("Result")
JSON = {"content-type": "application/json"}
NDJSON = {"content-type": "application/x-ndjson"}
BATCH = 500


class Door:
    """One daemon with a roster. A context manager, for code that is not asynchronous."""

    def __init__(self, roster: Path) -> None:
        self._settings = Settings(roster=roster)
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._client: httpx.AsyncClient

    def __enter__(self) -> Self:
        self._client = self._run(self._stack.enter_async_context(client_for(create_app(self._settings))))
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stack.aclose())
        self._runner.close()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(work)

    def ask(self, content: bytes) -> httpx.Response:
        """The answer to one body."""
        return self._run(self._client.post("/v1/validate", content=content, headers=JSON))

    def judge_one(self, case: Case) -> Json:
        answer: Json = self.ask(orjson.dumps(request_of(case))).json()
        return answer

    def judge(self, cases: Sequence[Case]) -> list[Json]:
        """The answer to each case, in order."""
        answers: list[Json] = []
        for at in range(0, len(cases), BATCH):
            content = b"\n".join(orjson.dumps(request_of(case)) for case in cases[at : at + BATCH])
            answer = self._run(self._client.post("/v1/validate/batch", content=content, headers=NDJSON))
            assert answer.status_code == 200, answer.text
            answers += [orjson.loads(line) for line in answer.content.splitlines()]
        assert len(answers) == len(cases)
        return answers

    def codes(self) -> dict[str, list[Json]]:
        """The codes of each kind, as the daemon lists them."""
        kinds = self._run(self._client.get("/v1/validators")).json()["validators"]
        return {kind["kind"]: kind["codes"] for kind in kinds}


def request_of(case: Case) -> Json:
    return {"kind": case.kind, "artifact": case.artifact, "context": case.context}
