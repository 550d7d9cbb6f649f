"""A chatd in this process: scripted models, and peers that answer from memory."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from chatd.app import create_app
from chatd.backends import FakeProvider, Step
from chatd.settings import Settings
from schemas.runs import Run
from services.clients import DistillClient, ValidatorsClient, VectordClient
from services.daemon import Daemon
from services.errors import PlatformError
from services.http import PeerClient
from services.testing import client_for

JSON = {"content-type": "application/json"}


def error(status: int, kind: str, code: str) -> httpx.Response:
    body = {"error": {"message": code, "type": kind, "code": code, "param": None, "request_id": None}}
    return httpx.Response(status, json=body)


@dataclass
class Distill:
    """Takes records, refuses those that `refuse` says, and can be down."""

    down: bool = False
    refuse: Callable[[dict[str, Any]], bool] = lambda _: False
    refuse_batches: bool = False
    records: list[dict[str, Any]] = field(default_factory=list)
    calls: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        if self.down:
            raise httpx.ConnectError("down")
        if request.url.path == "/healthz":
            return httpx.Response(200, json={"status": "ok"})
        records = [orjson.loads(line) for line in request.content.splitlines()]
        refused = [index for index, record in enumerate(records) if self.refuse(record)]
        if refused and self.refuse_batches:
            return error(400, "invalid_request_error", "invalid_record")
        self.records += [record for index, record in enumerate(records) if index not in refused]
        rejected = [{"line": index + 1, "code": "conflict", "message": "differs"} for index in refused]
        accepted = len(records) - len(refused)
        return httpx.Response(200, json={"accepted": accepted, "rejected": rejected, "durability": "fsync"})


@dataclass
class Validators:
    """Judges by `judge`: from an artifact to its findings."""

    judge: Callable[[Any], list[dict[str, Any]]] = lambda _: []
    down: bool = False
    alter: dict[str, Any] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("down")
        if request.method == "GET":
            return httpx.Response(200, json=KINDS)
        body = orjson.loads(request.content)
        self.requests.append(body)
        findings = self.judge(body["artifact"])
        verdict = "accepted"
        if findings:
            errors = [finding for finding in findings if finding["severity"] == "error"]
            verdict = "rejected" if errors else "needs_human_review"
        answer = {
            "ok": not findings,
            "verdict": verdict,
            "findings": findings,
            "kind": body["kind"],
            "validator": {"name": "stub", "version": "1", "policy_version": "1"},
            "elapsed_ms": 0.1,
            **self.alter,
        }
        return httpx.Response(200, json=answer)


KINDS: dict[str, Any] = {
    "validators": [
        {
            "kind": kind,
            "version": "1",
            "artifact_schema": {"type": "object", "required": ["order_id", "fills"]},
            "context_schema": {},
            "codes": [],
        }
        for kind in ("fill", "json_schema")
    ],
    "policy_version": "1",
    "roster": None,
}


@dataclass
class Vectord:
    down: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)
    payload: dict[str, Any] = field(default_factory=dict)
    texts: Sequence[str | None] = ("Forklift orders in Dayton fill from the west side.", None)
    refusal: PlatformError | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("down")
        if self.refusal is not None:
            return httpx.Response(self.refusal.status, content=self.refusal.envelope(None).model_dump_json())
        self.requests.append(orjson.loads(request.content))
        hits: list[dict[str, Any]] = [
            {
                "collection": "playbooks",
                "id": index,
                "score": 0.5,
                "role": "forklift",
                "text": text,
                "payload": self.payload,
            }
            for index, text in enumerate(self.texts)
        ]
        gate = {"role": "forklift", "canonical_role": "forklift", "checked": 2, "dropped": []}
        return httpx.Response(200, json={"hits": hits, "gate": gate})


@dataclass
class World:
    """Everything around one chatd. `client()` starts it; `restart` by calling it again."""

    data: Path
    distill: Distill = field(default_factory=Distill)
    validators: Validators = field(default_factory=Validators)
    vectord: Vectord = field(default_factory=Vectord)
    providers: list[FakeProvider] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def script(self, *steps: Step, name: str = "ollama", models: Sequence[str] = ("fake",)) -> FakeProvider:
        provider = FakeProvider(name, steps, models=models)
        self.providers.append(provider)
        return provider

    def app(self) -> Daemon:
        defaults: dict[str, Any] = {"data": self.data, "spool_linger_s": 0.0, "spool_retry_max_s": 0.05}
        return create_app(
            Settings(**{**defaults, **self.settings}),
            providers=self.providers,
            distill=DistillClient(_peer("distill", self.distill)),
            validators=ValidatorsClient(_peer("validators", self.validators)),
            vectord=VectordClient(_peer("vectord", self.vectord)),
        )

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        async with client_for(self.app()) as client:
            yield client

    @property
    def spool(self) -> Path:
        return self.data / "chatd" / "spool"

    def records(self) -> list[Run]:
        """Every record there is: with distill, and still in the spool."""
        spooled = [
            orjson.loads(line)
            for path in sorted(self.spool.glob("segment-*.jsonl"))
            for line in path.read_bytes().splitlines()
        ]
        return [Run.model_validate_json(orjson.dumps(one)) for one in [*self.distill.records, *spooled]]


def _peer(name: str, handler: Callable[[httpx.Request], httpx.Response]) -> PeerClient:
    return PeerClient(name, f"http://{name}", transport=httpx.MockTransport(handler))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "data")
