"""Tables on terminals of any width: columns give way in their order, and what is shown is shown whole."""

import io
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from stillhouse.tables import Column, fitted

COLUMNS: Final = (
    Column("id"),
    Column("scopes", wraps=True),
    Column("rpm", right=True),
    Column("expires"),
)
NEEDED: Final = ("id", "expires", "scopes", "rpm")
IDS: Final = ("01a204fc-a3af", "short")
ROWS: Final = [
    {
        "id": Text(key),
        "scopes": Text("chat embed vectors:write"),
        "rpm": Text("60"),
        "expires": Text("2030-01-31 00:00"),
    }
    for key in IDS
]


def lines(width: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width)
    out.print(fitted(COLUMNS, NEEDED, ROWS, width))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (15, ["id"]),
        (33, ["id", "expires"]),
        (48, ["id", "scopes", "expires"]),
        (53, ["id", "scopes", "rpm", "expires"]),
        (200, ["id", "scopes", "rpm", "expires"]),
    ],
)
def test_columns_give_way_in_their_order(width: int, shown: list[str]) -> None:
    assert lines(width)[0].split() == shown


@given(st.integers(15, 120))
def test_nothing_that_is_shown_is_cut_short(width: int) -> None:
    drawn = lines(width)
    assert "…" not in "".join(drawn)
    assert max(map(len, drawn)) <= width
    for key in IDS:
        assert sum(key in line.split() for line in drawn) == 1
