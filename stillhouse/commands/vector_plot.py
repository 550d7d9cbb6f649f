"""A plot of recall against queries a second, as SVG, drawn by hand: it needs no library."""

from collections.abc import Sequence
from html import escape
from typing import Final

from schemas.vectors import BenchmarkedSetting

WIDTH: Final = 640
HEIGHT: Final = 400
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 50
TICKS: Final = 5
STYLE: Final = (
    "text{font:12px sans-serif;fill:#333}.title{font-size:14px}.grid{stroke:#ddd}"
    ".line{fill:none;stroke:#2563eb;stroke-width:2}.dot{fill:#2563eb}"
    ".target{stroke:#dc2626;stroke-dasharray:4 3}"
)


class _Axis:
    """Values of one direction, as places on the page."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
        self.low, self.high = low - margin, high + margin
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self._start + share * (self._end - self._start), 1)

    def ticks(self) -> list[float]:
        step = (self.high - self.low) / TICKS
        return [self.low + step * number for number in range(TICKS + 1)]


def plot(title: str, settings: Sequence[BenchmarkedSetting], target: float | None) -> str:
    """One point for each setting, of which there is one at least; a line where the target is."""
    recalls = [setting.recall for setting in settings] + ([target] if target is not None else [])
    across = _Axis(recalls, LEFT, WIDTH - RIGHT)
    up = _Axis([0.0, *(setting.queries_per_s for setting in settings)], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        f'<style>{STYLE}</style><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>',
        *_grid(across, up),
    ]
    if target is not None:
        x = across.at(target)
        parts.append(f'<line class="target" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    places = [(across.at(each.recall), up.at(each.queries_per_s), each.ef) for each in settings]
    line = " ".join(f"{x},{y}" for x, y, _ in sorted(places))
    parts.append(f'<polyline class="line" points="{line}"/>')
    for x, y, ef in places:
        parts.append(
            f'<circle class="dot" cx="{x}" cy="{y}" r="4"/><text x="{x + 6}" y="{y - 6}">{ef}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _grid(across: _Axis, up: _Axis) -> list[str]:
    parts = []
    for value in across.ticks():
        x = across.at(value)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:.3f}</text>')
    for value in up.ticks():
        y = up.at(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{value:,.0f}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">recall</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 6}" text-anchor="middle">queries/s</text>')
    return parts
