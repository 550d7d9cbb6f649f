"""Records: canonical bytes, safe numbers, versions that are read or refused by name."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.canonical import canonical_bytes, content_id
from schemas.runs import Run

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)

RUN: dict[str, Any] = {
    "schema": "stillhouse.run",
    "schema_version": "1.0",
    "run_id": "r1",
    "ts": "2026-01-02T03:04:05Z",
    "request": {"messages": [{"role": "user", "content": "hi"}]},
    "model": {"provider": "ollama", "name": "m"},
}


@given(JSON)
def test_canonical_bytes_do_not_depend_on_key_order(value: Any) -> None:
    def reversed_keys(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: reversed_keys(item[key]) for key in reversed(list(item))}
        return [reversed_keys(part) for part in item] if isinstance(item, list) else item

    data = canonical_bytes(value)
    assert canonical_bytes(reversed_keys(value)) == data
    assert json.loads(data) == value


def test_canonical_form_of_a_known_value() -> None:
    assert canonical_bytes({"b": 1.0, "a": "€\n"}) == '{"a":"€\\n","b":1}'.encode()
    assert content_id({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53])
def test_numbers_that_runtimes_write_differently_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical_bytes({"n": value})


def test_a_run_survives_the_way_through_a_line() -> None:
    run = Run.model_validate(RUN)
    line = run.to_line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert Run.model_validate_json(line) == run
    assert json.loads(line)["schema"] == "stillhouse.run"


def test_a_newer_minor_is_read_and_nothing_of_it_is_lost() -> None:
    run = Run.model_validate(RUN | {"schema_version": "1.7", "mood": "good"})
    assert run.ext == {"mood": "good"}
    assert run.schema_version == "1.7"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": "2.0"}, "stillhouse.run 2.0 cannot be read here"),
        ({"schema_version": "one"}, "is not major.minor"),
        ({"schema": "stillhouse.walk"}, "this is a 'stillhouse.walk' record"),
        ({"mood": "good"}, "Extra inputs are not permitted"),
        ({"ts": "2026-01-02T03:04:05"}, "RFC 3339"),
        ({"request": {"messages": [], "params": {"seed": 2**53}}}, r"beyond 2\^53"),
    ],
)
def test_what_cannot_be_kept_exactly_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Run.model_validate(RUN | change)
