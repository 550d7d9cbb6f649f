"""The daemon through its door: verdicts, envelopes, batches, readiness."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from schemas.errors import ErrorEnvelope
from schemas.verdicts import ValidatorList, Verdict
from services.testing import client_for
from validators.app import create_app
from validators.backends import FakeRoster, FixedRoster
from validators.engine.codes import CODES
from validators.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(roster: FakeRoster) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(create_app(Settings(batch_lines_max=20), source=FixedRoster(roster))) as client:
        yield client


@pytest.fixture
async def bare() -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(create_app(Settings())) as client:
        yield client


def error_of(response: httpx.Response) -> dict[str, Any]:
    return ErrorEnvelope.model_validate_json(response.content).error.model_dump()


async def test_a_failing_artifact_is_answered_with_200(
    client: httpx.AsyncClient, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    proposal["fills"][0]["worker_id"] = "W-999"
    body = {"kind": "fill", "artifact": json.dumps(proposal), "context": {"order": order}, "run_id": "r-1"}
    response = await client.post("/v1/validate", json=body)
    assert response.status_code == 200
    verdict = Verdict.model_validate_json(response.content)
    assert (verdict.ok, verdict.verdict) == (False, "partially_accepted")
    (finding,) = response.json()["findings"]
    assert set(finding) == {"code", "severity", "path", "message", "fix", "evidence"}  # a text has a span
    assert finding["evidence"] == {"row": None}
    again = Verdict.model_validate_json((await client.post("/v1/validate", json=body)).content)
    assert again.model_copy(update={"elapsed_ms": 0.0}) == verdict.model_copy(update={"elapsed_ms": 0.0})
    metrics = (await client.get("/metrics")).text
    assert 'validators_verdicts_total{kind="fill",verdict="partially_accepted"} 2.0' in metrics
    assert "validators_roster_rows 13.0" in metrics


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"kind": "fax", "artifact": {}}, "kind", "unknown_kind"),
        ({"kind": "sms"}, "artifact", "invalid_request"),
        ({"kind": "sms", "artifact": {}, "extra": 1}, "extra", "unknown_field"),
        ({"kind": "sms", "artifact": {}, "context": {"sender": "x"}}, "context.sender", "unknown_field"),
        ({"kind": "fill", "artifact": {}}, "context.order", "invalid_request"),
        ({"kind": "sms", "artifact": {"n": 2**60}}, "artifact", "invalid_request"),
        (
            {"kind": "json_schema", "artifact": 1, "context": {"schema": "x"}},
            "context.schema",
            "invalid_request",
        ),
        ({"kind": "sms", "artifact": {}, "run_id": ""}, "run_id", "invalid_request"),
        ({"kind": "sms", "artifact": {}, "run_id": "two words"}, "run_id", "invalid_request"),
        ({"kind": "sms", "artifact": {}, "run_id": "r" * 129}, "run_id", "invalid_request"),
    ],
)
async def test_a_malformed_request_is_answered_with_400(
    client: httpx.AsyncClient, body: dict[str, Any], param: str, code: str
) -> None:
    response = await client.post("/v1/validate", json=body)
    assert response.status_code == 400
    error = error_of(response)
    assert (error["param"], error["code"]) == (param, code)


async def test_an_unknown_kind_is_told_the_known_ones(client: httpx.AsyncClient) -> None:
    message = error_of(await client.post("/v1/validate", json={"kind": "fax", "artifact": 1}))["message"]
    assert all(f"`{kind}`" in message for kind in ("fill", "email", "sms", "json_schema"))


async def test_an_artifact_beyond_the_limit_is_413(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/validate", json={"kind": "sms", "artifact": "x" * 70_000})
    assert response.status_code == 413
    assert error_of(response)["code"] == "artifact_too_large"


async def test_without_a_roster_only_fill_is_unavailable(
    bare: httpx.AsyncClient, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    response = await bare.post(
        "/v1/validate", json={"kind": "fill", "artifact": proposal, "context": {"order": order}}
    )
    assert response.status_code == 503
    assert error_of(response)["code"] == "roster_missing"
    assert "VALIDATORS_ROSTER" in error_of(response)["message"]
    assert "retry-after" in response.headers
    sms = {"kind": "sms", "artifact": {"to": "+16145550100", "body": "See you"}}
    assert (await bare.post("/v1/validate", json=sms)).json()["ok"]
    ready = await bare.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")


async def test_a_batch_answers_each_line_in_order(
    client: httpx.AsyncClient, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    fill = {"kind": "fill", "artifact": proposal, "context": {"order": order}}
    lines: list[Any] = [
        fill,
        {"kind": "fax", "artifact": 1},
        {"kind": "sms", "artifact": {"to": "+16145550100", "body": "Hi"}},
        {"kind": "json_schema", "artifact": "x" * 70_000},
    ]
    texts = [json.dumps(line) for line in lines]
    texts.insert(1, "{not json")
    texts.insert(2, "")
    response = await client.post("/v1/validate/batch", content="\n".join(texts))
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/x-ndjson")
    answers = [json.loads(line) for line in response.text.splitlines()]
    assert [answer.get("kind") or answer["error"]["code"] for answer in answers] == [
        "fill",
        "invalid_json",
        "unknown_kind",
        "sms",
        "artifact_too_large",
    ]
    assert "roster" in answers[0]
    assert "roster" not in answers[3]
    assert answers[1]["error"]["request_id"] == response.headers["x-request-id"]


async def test_a_batch_is_bounded_in_lines_and_in_their_length(client: httpx.AsyncClient) -> None:
    line = json.dumps({"kind": "sms", "artifact": {"to": "+16145550100", "body": "Hi"}})
    response = await client.post("/v1/validate/batch", content="\n".join([line] * 21))
    assert response.status_code == 413
    assert error_of(response)["code"] == "batch_too_long"
    long = json.dumps({"kind": "sms", "artifact": "x" * 600_000})
    response = await client.post("/v1/validate/batch", content=f"{long}\n{line}\n")
    first, second = map(json.loads, response.text.splitlines())
    assert first["error"]["code"] == "line_too_large"
    assert second["ok"]


async def test_the_list_of_validators(client: httpx.AsyncClient) -> None:
    answer = ValidatorList.model_validate_json((await client.get("/v1/validators")).content)
    assert [validator.kind for validator in answer.validators] == ["fill", "email", "sms", "json_schema"]
    assert {code.code for validator in answer.validators for code in validator.codes} == set(CODES)
    assert answer.roster is not None
    fill = answer.validators[0]
    assert fill.artifact_schema["required"] == ["order_id", "fills"]
    assert isinstance(fill.context_schema["properties"], dict)
    assert "order" in fill.context_schema["properties"]
