"""The intervals that the benchmarks print."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.intervals import Share


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [  # the examples of Newcombe's comparison (Statistics in Medicine 17, 1998), and their mirror images
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
        (28, 29, 0.8282, 0.9939),
    ],
)
def test_known_intervals(hits: int, total: int, low: float, high: float) -> None:
    share = Share.of(hits, total)
    assert [share.low, share.high] == pytest.approx([low, high], abs=6e-5)


@given(total=st.integers(1, 10_000), data=st.data())
def test_an_interval_holds_its_share_and_mirrors(total: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, total))
    share, mirror = Share.of(hits, total), Share.of(total - hits, total)
    assert 0 <= share.low <= hits / total <= share.high <= 1
    assert share.low == pytest.approx(1 - mirror.high, abs=1e-12)


@pytest.mark.parametrize(("hits", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_what_is_no_share(hits: int, total: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        Share.of(hits, total)


def test_it_reads_like_a_sentence() -> None:
    assert str(Share.of(5, 10)) == "5/10 = 50% (95 % interval 24% to 76%)"
