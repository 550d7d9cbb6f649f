"""Tables that fit: where a terminal is narrow, columns give way, and no name is cut short."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.table import Table
from rich.text import Text

GAP_CHARS: Final = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One of a table's. `wraps`: its cells may be broken between words, where there is little room."""

    name: str
    right: bool = False
    wraps: bool = False

    def chars(self, cells: Iterable[str]) -> int:
        """How wide it is at least."""
        parts = (part for cell in cells for part in (cell.split() if self.wraps else [cell]))
        return max(len(self.name), *map(len, parts))


def fitted(
    columns: Sequence[Column], first_needed: Sequence[str], rows: Sequence[Mapping[str, Text]], width: int
) -> Table:
    """A table of as many columns as there is room for. `first_needed` says which give way last.

    Cells are by the names of columns.
    """
    by_name = {column.name: column for column in columns}
    shown: set[str] = set()
    for name in first_needed:
        width -= by_name[name].chars(row[name].plain for row in rows) + GAP_CHARS
        if width < 0 and shown:
            break
        shown.add(name)
    table = Table(box=None, padding=(0, GAP_CHARS, 0, 0))
    for column in columns:
        if column.name in shown:
            table.add_column(
                column.name, justify="right" if column.right else "left", no_wrap=not column.wraps
            )
    for row in rows:
        table.add_row(*(row[column.name] for column in columns if column.name in shown))
    return table
