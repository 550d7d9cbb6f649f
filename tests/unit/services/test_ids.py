"""Ids: made well, taken over only when they are harmless."""

import re
import uuid

from hypothesis import given
from hypothesis import strategies as st

from services import ids


def test_uuid7_is_version_7_and_sorts_by_time() -> None:
    made = [ids.uuid7() for _ in range(50)]
    parsed = [uuid.UUID(text) for text in made]
    assert {value.version for value in parsed} == {7}
    assert {value.variant for value in parsed} == {uuid.RFC_4122}
    assert len(set(made)) == 50
    assert [value.int >> 80 for value in parsed] == sorted(value.int >> 80 for value in parsed)


@given(st.text(alphabet="abcXYZ019._-", min_size=1, max_size=128))
def test_a_harmless_request_id_is_kept(offered: str) -> None:
    assert ids.request_id(offered) == offered


@given(st.text(max_size=200))
def test_whatever_is_offered_the_id_is_harmless(offered: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", ids.request_id(offered))


def test_a_trace_goes_on_with_a_new_span() -> None:
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    child = ids.child_traceparent(f"00-{trace}-{span}-00")
    match = ids.TRACEPARENT.fullmatch(child)
    assert match is not None
    assert match[1] == trace
    assert match[2] != span
    assert match[3] == "00"


@given(st.text(max_size=80))
def test_a_broken_trace_is_replaced(offered: str) -> None:
    assert ids.TRACEPARENT.fullmatch(ids.child_traceparent(offered))
