import math
import struct
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.canonical import canonical_bytes

BITS = st.integers(min_value=0, max_value=2**64 - 1).map(
    lambda n: struct.unpack("<d", struct.pack("<Q", n))[0]
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    BITS,
    st.floats(min_value=1e-7, max_value=1e-4),
    st.integers(min_value=-(10**6), max_value=10**6).map(float),
    st.integers(min_value=-(10**9), max_value=10**9).map(lambda n: n / 1000),
)
TEXTS = st.text(st.characters(codec=None), max_size=8) | st.text(
    "a\ud7ff\ue000\uffff\U00010000\U0010ffff", max_size=3
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)


def outcome(write: Any, value: Any) -> bytes | str:
    try:
        return bytes(write(value))
    except ValueError:
        return "refused"


@settings(max_examples=400)
@given(JSON)
def test_the_form_is_the_standard_one_whatever_the_value(value: Any) -> None:
    assert outcome(canonical_bytes, value) == outcome(rfc8785.dumps, value)


@settings(max_examples=400)
@given(NUMBERS)
def test_numbers_are_written_as_the_standard_says(number: float) -> None:
    assert outcome(canonical_bytes, [number]) == outcome(rfc8785.dumps, [number])


def test_every_character_is_written_as_the_standard_says() -> None:
    for start in range(0, 0x110000, 0x1000):
        text = "".join(map(chr, range(start, start + 0x1000)))
        assert outcome(canonical_bytes, text) == outcome(rfc8785.dumps, text)


@pytest.mark.parametrize(
    "number", [-0.0, 5e-324, 1e-7, 1e-6, 1e-5, 0.1, 1e15, 2.0**53 - 1, 1e16, 1e20, 1e21, 1e300]
)
def test_the_edges_of_number_forms(number: float) -> None:
    for value in (number, -number, math.nextafter(number, 0), math.nextafter(number, math.inf)):
        assert outcome(canonical_bytes, value) == outcome(rfc8785.dumps, value)


@pytest.mark.parametrize(
    "value", [{1: 2}, {"a": {1, 2}}, float("nan"), float("inf"), 2**53, -(2**53), "\ud800"]
)
def test_what_has_no_canonical_form_is_refused_alike(value: Any) -> None:
    assert outcome(canonical_bytes, value) == outcome(rfc8785.dumps, value) == "refused"


def test_deep_values_have_a_form_too() -> None:
    deep = orjson.loads(b"[" * 300 + b"]" * 300)
    assert canonical_bytes(deep) == b"[" * 300 + b"]" * 300
