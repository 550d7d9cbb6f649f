"""The quick look at records against the model: it lets nothing pass that the model refuses, to the byte.

An inside is tested here because nothing of it shows from outside but speed.
"""

import copy
import json
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.engine import intake
from distill.engine.ordinary import certainly
from schemas.review import Review
from schemas.runs import Run, VerdictRecord
from services.errors import InvalidRequest
from tests.unit.distill.builders import Json, run, verdict, verdict_record

DEPTH_MAX = 64


def full() -> Json:
    """A run in which every field says something."""
    judged = verdict("rejected", "fill.underage")
    judged["findings"][0] |= {"span": [1, 5], "fix": {"name": "W"}, "evidence": {"bytes": 1.5, "of": None}}
    judged["roster"] = {"sha256": "ab", "as_of": "2026-11-01", "rows": 3}
    return run(
        "r-1",
        ext={"attempt": 2, "nested": [{"deep": [1, -2.5, None, True, "ümlaut"]}]},
        episode_id="e.1",
        principal="agency",
        task={"kind": "fill", "key": "JO-1"},
        retrieved_context=[
            {"collection": "notes", "id": 7, "role": None, "score": 0.8123456789012345, "text": "t"}
            | {"text_sha256": "00"},
            {"collection": "notes", "id": "x", "text": "v1.0, e-mail", "text_sha256": "00"},
        ],
        attempts=[{"provider": "p", "model": "m", "status": "ok", "code": None, "latency_ms": 12}],
        output={
            "content": None,
            "tool_calls": [{"id": "c", "function": {"name": "f"}}],
            "finish_reason": "x",
        },
        usage={"prompt_tokens": 12, "completion_tokens": None, "cost_usd": 0.00025},
        latency_ms=410.5,
        ttft_ms=20.0,
        verdict=judged,
        config_hash="c0ffee",
    )


ODD_VALUES = st.one_of(
    st.sampled_from(
        [
            *(None, True, False, "", "x", "a b", "x" * 129, "1", "1.5", "ok", "2026-11-02T10:00:00Z"),
            *("2026-02-29T10:00:00Z", "2026-04-31T10:00:00Z", "2024-02-29T23:59:60Z", "0000-01-01T00:00:00Z"),
            *("2026-11-02 10:00:00Z", "2026-11-02T10:00:00", "2026-11-02T24:00:00Z", "2026-11-02t10:00:00z"),
            *("2026-11-02T10:00:00+24:00", "2026-11-02T10:00:00-23:59", "2026-11-02T10:00:00.1234567Z"),
            *(
                "2026-11-02T10:00:00Z\n",
                "r1\n",
                "٣",
                "stillhouse.run",
                "stillhouse.verdict",
                "1.0",
                "1.1",
                "2.0",
            ),
            *(0, 1, -1, 2**53 - 1, 2**53, -(2**53), 2**63, 2**64 - 1, 1795344763),
            *(0.0, -0.0, 1.0, 1.5, -1.5, 1e-5, 9e-6, 1e-300, 1e15, 9007199254740993.0, 1e16, 1e300, 12.0),
            *([], {}, [1], [1, 2], [1, 2, 3], ["x"], [{}], [[]], {"x": 1}, {"kind": "k"}, {"code": "x"}),
            *({"\ue000": 1, "\U0001f600": 2}, {"\ufb33": 1, "z": {"\U0001f4a9": 1.0}}, {"é": 1, "e": 2}),
        ]
    ),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner, max_size=3
            )
        ),
        max_leaves=6,
    ),
)
KEYS = st.sampled_from(
    ["mood", "schema", "schema_", "schema_version", "ext", "kind", "run_id", "ok", "\ue001"]
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a value at which something can be changed."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    for item in pending:  # which grows meanwhile
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in keys:
            found.append((item, key))
            pending.append(item[key])
    return found


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A good record with a few changes, as somebody may have written it."""
    record = copy.deepcopy(
        draw(st.sampled_from([full(), run("r1"), verdict_record("r1", "rejected", "a.b")]))
    )
    for _ in range(draw(st.integers(0, 3))):
        holder, key = draw(st.sampled_from(places(record)))
        what = draw(st.sampled_from(["change", "remove", "add"]))
        if what == "change":
            holder[key] = copy.deepcopy(draw(ODD_VALUES))
        elif what == "remove":
            del holder[key]
        elif isinstance(holder, dict):
            holder[draw(KEYS)] = copy.deepcopy(draw(ODD_VALUES))
    return json.dumps(record, ensure_ascii=draw(st.booleans())).encode()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records(), st.sampled_from([None, "agency", "ågency"]))
def test_what_is_taken_at_once_is_what_the_model_would_take(data: bytes, principal: str | None) -> None:
    entry = intake.at_once(data, principal)
    if entry is not None:
        assert entry == intake.by_model(data, principal, depth_max=DEPTH_MAX)


@pytest.mark.parametrize("record", [full(), run("r1"), verdict_record("r1", "rejected", "a.b")])
def test_ordinary_records_are_taken_at_once(record: Json) -> None:
    data = orjson.dumps(record)
    entry = intake.at_once(data, "agency")
    assert entry is not None
    assert entry == intake.by_model(data, "agency", depth_max=DEPTH_MAX)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"temperature":1', b'"temperature":1e400'),
        (b'"temperature":1', b'"temperature":123456789012345678901234567890'),
        (b'"temperature":1', b'"temperature":9007199254740992'),
        (b'"temperature":1', b'"temperature":NaN'),
        (b'"temperature":1', b'"t":"\\ud800"'),
        (b'"run_id":"r1"', b'"run_id":"r1\\n"'),
        (b"{", b"["),
    ],
)
def test_what_no_reader_could_keep_is_not_taken_at_once(before: bytes, after: bytes) -> None:
    data = orjson.dumps(run("r1", ext={"temperature": 1})).replace(before, after)
    assert intake.at_once(data, None) is None
    with pytest.raises(InvalidRequest):
        intake.by_model(data, None, depth_max=DEPTH_MAX)


@pytest.mark.parametrize("number", [b"1e5", b"1.0", b"-0.0", b"1E+2", b"0.1", b"1e-6", b"1e17", b"5e-324"])
def test_numbers_are_written_the_same_way(number: bytes) -> None:
    data = orjson.dumps(run("r1", ext={"temperature": 1})).replace(b":1}", b":" + number + b"}")
    assert intake.parse_record(data, None, depth_max=DEPTH_MAX) == intake.by_model(
        data, None, depth_max=DEPTH_MAX
    )


def test_models_with_rules_of_their_own_are_left_to_themselves() -> None:
    review = {
        "review_id": "1",
        "ts": "2026-11-02T10:00:00Z",
        "evidence_id": "0" * 64,
        "decision": "correct",  # without a correction
        "by": "ann",
    }
    assert not certainly(Review)(review)
    assert certainly(Run)(run("r1"))
    assert certainly(VerdictRecord)(verdict_record("r1"))
