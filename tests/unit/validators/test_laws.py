"""What holds for any input: nothing raises, answers repeat, spans lie in the text."""

import asyncio
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.verdicts import ValidateRequest, Verdict
from validators.engine import Engine

scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ids = st.sampled_from(["W-001", "W-002", "W-003", "W-010", "W-015", "W-999", ""]) | st.text(max_size=8)
fills = st.lists(
    st.fixed_dictionaries({"worker_id": ids}, optional={"name": st.text(max_size=20), "x": scalars})
    | json_values,
    max_size=6,
)
proposals = st.fixed_dictionaries({"order_id": st.text(max_size=5), "fills": fills}) | json_values
pieces = st.sampled_from(
    [
        "Hi ",
        "Bob,",
        "{{",
        "}}",
        "123-45-6789",
        "4111 1111 1111 1111",
        "€",
        "’",
        "😀",
        "acme.com",
        "\n",
        "STOP",
    ]
)
bodies = st.lists(pieces | st.text(max_size=30), max_size=12).map("".join)
messages = st.fixed_dictionaries({"to": st.text(max_size=15), "body": bodies}) | json_values
every = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)


def judged(engine: Engine, kind: str, artifact: Any, context: dict[str, Any]) -> Verdict:
    request = ValidateRequest(kind=kind, artifact=artifact, context=context)
    answers = [asyncio.run(engine.validate(request)).to_json() for _ in range(2)]
    verdicts = [
        Verdict.model_validate_json(answer).model_copy(update={"elapsed_ms": 0.0}) for answer in answers
    ]
    assert verdicts[0].model_dump_json() == verdicts[1].model_dump_json()
    return verdicts[0]


def check(verdict: Verdict) -> None:
    assert verdict.ok == (verdict.verdict == "accepted")
    severities = {finding.severity for finding in verdict.findings}
    assert verdict.ok == (not severities & {"error", "review"})


@every
@given(artifact=proposals, count=st.integers(1, 4))
def test_fill(engine: Engine, order: dict[str, Any], artifact: Any, count: int) -> None:
    context = {"order": order | {"count": count}}
    verdict = judged(engine, "fill", json.dumps(artifact), context)
    check(verdict)
    for finding in verdict.findings:
        assert finding.path == "" or finding.path.startswith("/")


@every
@given(artifact=messages, segments_max=st.integers(1, 3), first_contact=st.booleans())
def test_sms(engine: Engine, artifact: Any, segments_max: int, first_contact: bool) -> None:
    context = {
        "recipient": {"worker_id": "W-002"},
        "segments_max": segments_max,
        "first_contact": first_contact,
    }
    verdict = judged(engine, "sms", json.dumps(artifact), context)
    check(verdict)
    for finding in verdict.findings:
        if finding.span is not None:
            assert isinstance(artifact, dict)
            assert 0 <= finding.span[0] <= finding.span[1] <= len(artifact["body"])


addresses = st.lists(
    st.sampled_from(["w0@example.com", "Bob <w0@example.com>"]) | st.text(max_size=12), max_size=3
)
drafts = st.fixed_dictionaries(
    {"to": addresses, "subject": bodies, "body": bodies},
    optional={
        "from": st.text(max_size=12),
        "headers": st.dictionaries(st.text(max_size=6), bodies, max_size=2),
    },
)


@every
@given(artifact=drafts | json_values)
def test_email(engine: Engine, artifact: Any) -> None:
    verdict = judged(engine, "email", json.dumps(artifact), {"recipient": {"worker_id": "W-001"}})
    check(verdict)
    for finding in verdict.findings:
        if finding.span is not None and finding.path in ("/body", "/subject"):
            assert 0 <= finding.span[0] <= finding.span[1] <= len(artifact[finding.path[1:]])


@every
@given(artifact=json_values)
def test_json_schema(engine: Engine, artifact: Any) -> None:
    schema = {"type": "object", "additionalProperties": {"type": "string"}}
    verdict = judged(engine, "json_schema", json.dumps(artifact), {"schema": schema})
    check(verdict)
    fine = isinstance(artifact, dict) and all(isinstance(value, str) for value in artifact.values())
    assert verdict.ok == fine
