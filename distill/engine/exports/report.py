"""The report on a dataset: one HTML file with its plots drawn in, which needs nothing else to be read."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from schemas.evidence import DatasetManifest

WIDTH: Final = 640
LABEL_WIDTH: Final = 220
BAR_HEIGHT: Final = 20
GAP: Final = 6
BARS_MAX: Final = 40

STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 46rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } code { overflow-wrap: anywhere; }
svg { max-width: 100%; height: auto; } svg text { fill: currentColor; font: 13px system-ui, sans-serif; }
svg rect { fill: #2f6f9f; }
"""

Bars = Sequence[tuple[str, int]]


def report(
    manifest: DatasetManifest,
    *,
    categories: Mapping[str, int],
    sources: Mapping[str, int],
    lengths: Mapping[str, int],
) -> str:
    """The page. `lengths` counts rows by the bits of their length in bytes."""
    counts = manifest.counts
    sections = [
        _plot("Split sizes", "rows", [(name, manifest.splits.get(name, 0)) for name in manifest.splits]),
        _plot("Categories", "pieces of evidence", _ordered(categories)),
        _plot("Sources", "pieces of evidence", _ordered(sources)),
        _plot("Lengths", "rows", _spread(lengths)),
        _plot("Left out, by reason", "pieces of evidence", _ordered(manifest.reasons)),
        _plot("Rows with masked personal data, by class", "rows", _ordered(manifest.pii)),
        _files(manifest),
    ]
    title = escape(manifest.dataset_id)
    return (
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        "<meta name=viewport content='width=device-width, initial-scale=1'>\n"
        f"<title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n"
        f"<p>{counts['rows']} {escape(manifest.kind)} rows for {escape(manifest.target)} in"
        f" {manifest.groups} groups, from {counts['in']} pieces of evidence. {counts['drafts']} are the worse"
        f" half of a pair, {counts['quarantined']} were left out.</p>\n" + "\n".join(sections) + "\n</html>\n"
    )


def _ordered(counts: Mapping[str, int]) -> Bars:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _spread(lengths: Mapping[str, int]) -> Bars:
    bits = sorted(int(one) for one in lengths)
    every = range(bits[0], bits[-1] + 1) if bits else ()
    return [(f"{1 << (one - 1)} to {(1 << one) - 1} bytes", lengths.get(str(one), 0)) for one in every]


def _plot(title: str, unit: str, bars: Bars) -> str:
    heading = f"<h2>{escape(title)}</h2>"
    if not bars:
        return f"{heading}\n<p>None.</p>"
    shown = bars[:BARS_MAX]
    height = len(shown) * (BAR_HEIGHT + GAP)
    most = max(value for _, value in shown) or 1
    room = WIDTH - LABEL_WIDTH - 90
    drawn = "".join(
        _bar(label, value, place * (BAR_HEIGHT + GAP), max(room * value / most, 1.0 if value else 0.0))
        for place, (label, value) in enumerate(shown)
    )
    more = f"<p>{len(bars) - len(shown)} more are in the manifest.</p>" if len(bars) > len(shown) else ""
    name = f"{title}, in {unit}"
    return (
        f'{heading}\n<svg role=img aria-label="{escape(name)}" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}"><title>{escape(name)}</title>{drawn}</svg>{more}'
    )


def _bar(label: str, value: int, top: int, length: float) -> str:
    middle = top + BAR_HEIGHT - 6
    return (
        f'<text x="0" y="{middle}">{escape(label)}</text>'
        f'<rect x="{LABEL_WIDTH}" y="{top}" width="{length:.1f}" height="{BAR_HEIGHT}"/>'
        f'<text x="{LABEL_WIDTH + length + 6:.1f}" y="{middle}">{value}</text>'
    )


def _files(manifest: DatasetManifest) -> str:
    rows = "".join(
        f"<tr><td>{escape(file.name)}<td class=n>{file.lines}<td class=n>{file.bytes}"
        f"<td><code>{file.sha256}</code>"
        for file in manifest.files
    )
    return f"<h2>Files</h2>\n<table><tr><th>file<th>lines<th>bytes<th>sha256{rows}</table>"
