"""The frames between gateway and embedd: cut in any way, they give the same parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ErrorBody
from schemas.hop import (
    Answered,
    Call,
    PartReader,
    Refused,
    decode_request,
    encode_answered,
    encode_refused,
    encode_request,
)

IDS = st.integers(0, 2**40)
FRAGMENTS = st.lists(st.binary(max_size=40), min_size=1, max_size=4)

answered = st.builds(
    lambda id_, fragments, hits: Answered(
        id_, "sha256:0", hits, len(fragments), [1] * len(fragments), 0.5, 7.25, fragments
    ),
    IDS,
    FRAGMENTS,
    st.integers(0, 9),
)
refused = st.builds(
    lambda id_, message, retry: Refused(
        id_,
        429,
        ErrorBody(message=message, type="rate_limit_error", code="full", param="input.3", request_id="r"),
        retry,
    ),
    IDS,
    st.text(max_size=30),
    st.none() | st.just(1.5),
)


@given(st.lists(answered | refused, max_size=5), st.lists(st.integers(1, 50), max_size=40))
def test_parts_arrive_whole_however_the_stream_is_cut(
    parts: list[Answered | Refused], cuts: list[int]
) -> None:
    stream = b"".join(
        encode_answered(part) if isinstance(part, Answered) else encode_refused(part) for part in parts
    )
    reader = PartReader()
    found: list[Answered | Refused] = []
    at = 0
    for cut in [*cuts, len(stream)]:
        found += reader.feed(stream[at : at + cut])
        at += cut
    assert found == parts
    assert reader.clean


def test_half_a_part_is_noticed() -> None:
    reader = PartReader()
    part = Answered(1, "d", 1, 0, [1], 0.0, 0.0, [b"[1.0]"])
    assert reader.feed(encode_answered(part)[:-1]) == []
    assert not reader.clean


def test_an_absurd_length_is_refused() -> None:
    with pytest.raises(ValueError, match="are accepted"):
        PartReader().feed(b"\xff\xff\xff\xff1234")


def test_calls_survive_the_way() -> None:
    call = Call(7, "r-1", "00-a-b-01", "m", "query", False, 256, "base64", ["one", "zwö"])
    assert decode_request(encode_request("gw", [call], [3, 4])) == ("gw", [call], [3, 4])


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'["a", [[1]], []]', b'["a", 5, []]'])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_request(data)
