"""The plots of a comparison, as SVG drawn by hand: they need no library and no style of their own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 720
LABEL: Final = 190
RIGHT: Final = 20
ROW: Final = 34
AXIS: Final = 30
TICKS: Final = (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0, 20.0, 25.0)
TICKS_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Whisker:
    """A value with its interval, all in percentage points."""

    label: str
    low: float
    value: float
    high: float


@dataclass(frozen=True, slots=True)
class _Scale:
    """Values across the plot, as places on it."""

    low: float
    high: float

    def at(self, value: float) -> float:
        return round(LABEL + (value - self.low) / (self.high - self.low) * (WIDTH - RIGHT - LABEL), 1)

    def ticks(self) -> Iterator[float]:
        step = next((one for one in TICKS if (self.high - self.low) / one <= TICKS_MAX), TICKS[-1])
        first = -int(-self.low // step) if self.low < 0 else int(-(-self.low // step))
        number = first
        while number * step <= self.high + 1e-9:
            if number * step >= self.low - 1e-9:
                yield number * step
            number += 1


def whiskers(title: str, rows: Sequence[Whisker], *, line: float | None = None, line_name: str = "") -> str:
    """One row for each value, with its interval; zero or another value as a line through all of them."""
    values = [end for row in rows for end in (row.low, row.high)] + ([line] if line is not None else [])
    margin = max((max(values) - min(values)) * 0.08, 0.5)
    scale = _Scale(min(values) - margin, max(values) + margin)
    height = len(rows) * ROW + AXIS
    drawn = [*_grid(scale, height)]
    if line is not None:
        drawn.append(_line("line", scale.at(line), height, line_name))
    drawn.extend(part for number, row in enumerate(rows) for part in _whisker(scale, row, number))
    return _svg(title, height, drawn)


def _whisker(scale: _Scale, row: Whisker, number: int) -> Iterator[str]:
    y = number * ROW + ROW / 2
    yield f'<text x="0" y="{y + 4}">{escape(row.label)}</text>'
    yield (
        f'<line class="reach" x1="{scale.at(row.low)}" x2="{scale.at(row.high)}" y1="{y}" y2="{y}"/>'
        f'<circle class="value" cx="{scale.at(row.value)}" cy="{y}" r="5"><title>'
        f"{row.value:.1f} ({row.low:.1f} to {row.high:.1f})</title></circle>"
    )


def _grid(scale: _Scale, height: int) -> Iterator[str]:
    for tick in scale.ticks():
        x = scale.at(tick)
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{height - AXIS + 4}"/>'
        yield f'<text x="{x}" y="{height - 8}" text-anchor="middle">{tick:g}</text>'


def _line(name: str, x: float, height: int, title: str) -> str:
    return (
        f'<line class="{name}" x1="{x}" x2="{x}" y1="0" y2="{height - AXIS + 4}">'
        f"<title>{escape(title)}</title></line>"
    )


def shares(title: str, rows: Sequence[tuple[str, Mapping[str, int]]], names: Sequence[str]) -> str:
    """One bar for each row, cut into the shares of `names`, in their order."""
    height = len(rows) * ROW + AXIS
    drawn = [part for number, row in enumerate(rows) for part in _bar(row, names, number)]
    drawn.extend(_legend(names, height))
    return _svg(title, height, drawn)


def _bar(row: tuple[str, Mapping[str, int]], names: Sequence[str], number: int) -> Iterator[str]:
    label, counts = row
    total, y, x = sum(counts.values()) or 1, number * ROW + 6, float(LABEL)
    yield f'<text x="0" y="{y + 15}">{escape(label)}</text>'
    for place, name in enumerate(names):
        width = counts.get(name, 0) / total * (WIDTH - RIGHT - LABEL)
        if width > 0:
            yield (
                f'<rect class="part{place}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 12}">'
                f"<title>{escape(name)}: {counts[name]} of {total}</title></rect>"
            )
        x += width


def _legend(names: Sequence[str], height: int) -> Iterator[str]:
    for place, name in enumerate(names):
        x = LABEL + place * (WIDTH - RIGHT - LABEL) / len(names)
        yield f'<rect class="part{place}" x="{x:.1f}" y="{height - 18}" width="12" height="12"/>'
        yield f'<text x="{x + 17:.1f}" y="{height - 8}">{escape(name)}</text>'


def _svg(title: str, height: int, drawn: Sequence[str]) -> str:
    name = escape(title)
    return (
        f'<svg role="img" aria-label="{name}" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}"><title>{name}</title>{"".join(drawn)}</svg>'
    )
