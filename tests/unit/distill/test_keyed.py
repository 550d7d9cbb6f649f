"""The quick order by many keys is the slow one's."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.engine.keyed import ordered

COLUMN = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), max_size=60)


@settings(max_examples=300, deadline=None)
@given(COLUMN)
def test_an_order_by_many_keys(rows: list[tuple[int, int, int]]) -> None:
    table = np.array(rows, np.uint64).reshape(-1, 3)
    first, second, third = table[:, 0], table[:, 1], table[:, 2]
    assert ordered(first, second, third).tolist() == np.lexsort((third, second, first)).tolist()
