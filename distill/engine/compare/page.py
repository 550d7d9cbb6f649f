"""The report on a comparison: one HTML file that needs nothing else, and that no text in it can take over.

Texts of models and people are hostile. All of them are escaped, and the page's policy lets run and apply
nothing but the one script and the one style that are in it, by their hashes.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Final, get_args

from distill.engine.compare.pairing import Pair
from distill.engine.compare.plots import Whisker, shares, whiskers
from distill.engine.compare.results import TaskResult
from schemas.comparison import Arm, Change, Comparison, MedianDifference, Quality, Rate
from schemas.replay import ReplayOutcome
from schemas.verdicts import Finding

SHOWN_MAX: Final = 200
"""Discordant tasks with their texts side by side."""
NAMED_MAX: Final = 50
HASH: Final = re.compile(r"[0-9a-f]{32,}")
OUTCOMES: Final[tuple[ReplayOutcome, ...]] = get_args(ReplayOutcome)


def page(comparison: Comparison, discordant: Sequence[Pair]) -> str:
    """The report. `discordant` are the tasks to show side by side, the most telling first."""
    one = comparison
    style, script = _part("report.css"), _part("report.js")
    title = f"{one.current.replay_id} against {one.baseline.replay_id}"
    sections = [
        f"<h1>{_safe(title)}</h1>",
        _summary(one),
        _rates(one),
        _difference(one),
        _roles(one),
        _outcomes(one),
        _measures(one.measures),
        _changes(one),
        _left_out(one),
        _side_by_side(one, discordant),
        _method(one),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_safe(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + f"\n<script>{script}</script>\n</body>\n</html>\n"
    )


@lru_cache
def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}';"
        " base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _safe(text: str) -> str:
    """A text as HTML. Characters that HTML forbids, or that turn the order of others, are shown as signs."""
    return escape(text.translate(_SIGNS))


_TURNING: Final = (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)
_SIGNS: Final = (
    {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
    | {0x7F: 0x2421}
    | dict.fromkeys((*range(0x80, 0xA0), *_TURNING), 0xFFFD)
)


# --- what came of it ----------------------------------------------------------------------------


def _summary(one: Comparison) -> str:
    kind = {"better": "better", "worse": "worse"}.get(one.verdict, "quiet")
    gate = ""
    if one.gate is not None:
        word, look = ("passed", "better") if one.gate.passed else ("failed", "worse")
        gate = (
            f'<p>Gate <b>{_safe(one.gate.gate)}</b>: <b class="{look}">{word}</b>,'
            f" {_safe(one.gate.reason)}.</p>"
        )
    notes = "".join(f"<li>{_safe(note)}" for note in one.notes)
    return (
        f'<p>At {100 * one.confidence:.4g} % confidence: <b class="{kind}">{one.verdict}</b>,'
        f" {_safe(one.reason)}.</p>{gate}" + (f"<ul>{notes}</ul>" if notes else "")
    )


def _rates(one: Comparison) -> str:
    rows = [
        _whisker(f"{name}, {how}", rate)
        for name, arm in (("baseline", one.baseline), ("current", one.current))
        for how, rate in (("by itself", arm.own), ("with escalation", arm.any))
    ]
    table = "".join(
        f"<tr><td>{side}<td>{_safe(arm.name)}<td class=n>{_rate(arm.own)}<td class=n>{_rate(arm.any)}"
        f"<td class=n>{arm.tasks}<td class=n>{_cost(arm)}"
        for side, arm in (("baseline", one.baseline), ("current", one.current))
    )
    return (
        f"<h2>Pass rates</h2>\n{whiskers('Pass rates in percent, with intervals', rows)}\n"
        "<table><tr><th>arm<th>configuration<th>passed by itself<th>with escalation<th>tasks<th>cost, USD"
        f"{table}</table>"
    )


def _whisker(label: str, rate: Rate) -> Whisker:
    low, high = rate.interval
    return Whisker(label, 100 * low, 100 * rate.rate, 100 * high)


def _rate(rate: Rate) -> str:
    low, high = rate.interval
    return f"{_percent(rate.rate)} ({_percent(low)} to {_percent(high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _cost(arm: Arm) -> str:
    return "unknown" if arm.cost_usd is None else f"{arm.cost_usd:.4f}"


def _difference(one: Comparison) -> str:
    quality = one.quality
    low, high = (100 * end for end in quality.interval)
    row = Whisker("current less baseline", low, 100 * quality.difference, high)
    mcnemar = "does not apply" if quality.mcnemar_p is None else f"p = {quality.mcnemar_p:.3g}"
    least = "none" if quality.detectable is None else f"{100 * quality.detectable:.1f} points"
    figures = [
        ("tasks in both arms", f"{quality.tasks} in {quality.groups} independent groups"),
        ("difference", f"{100 * quality.difference:+.1f} points ({low:+.1f} to {high:+.1f})"),
        ("current better, worse", f"{quality.better}, {quality.worse} tasks"),
        ("exact test over groups", f"p = {quality.p:.3g}"),
        ("McNemar's exact test", mcnemar),
        ("least difference that such data show", least),
    ]
    table = "".join(f"<tr><td>{name}<td class=n>{_safe(value)}" for name, value in figures)
    plot = whiskers("Difference of pass rates in points", [row], line=0.0, line_name="no difference")
    return f"<h2>Difference</h2>\n{plot}\n<table>{table}</table>"


def _roles(one: Comparison) -> str:
    if not one.roles:
        return ""
    rows = "".join(
        f"<tr><td>{'<i>none</i>' if part.role is None else _safe(part.role)}"
        f"<td class=n>{part.quality.tasks}<td class=n>{part.quality.groups}"
        f"<td class=n>{_rate(part.baseline)}<td class=n>{_rate(part.current)}"
        f"<td class=n>{_points(part.quality)}<td class=n>{part.p_corrected:.3g}"
        for part in one.roles
    )
    return (
        "<h2>By job role</h2>\n<p>There is no verdict by role: of many roles, one differs by chance. The p of"
        " the test is corrected for that (Holm).</p>\n<table><tr><th>role<th>tasks<th>groups<th>baseline"
        f"<th>current<th>difference, points<th>p, corrected{rows}</table>"
    )


def _points(quality: Quality) -> str:
    low, high = (100 * end for end in quality.interval)
    return f"{100 * quality.difference:+.1f} ({low:+.1f} to {high:+.1f})"


def _outcomes(one: Comparison) -> str:
    rows = [("baseline", _counts(one.baseline)), ("current", _counts(one.current))]
    return f"<h2>Outcomes</h2>\n{shares('Outcomes of all answers', rows, OUTCOMES)}"


def _counts(arm: Arm) -> dict[str, int]:
    return {str(name): count for name, count in arm.outcomes.items()}


def _measures(measures: Sequence[MedianDifference]) -> str:
    if not measures:
        return ""
    units = {"latency_ms": ("latency, ms", ".0f"), "cost_usd": ("cost, USD", ".6f")}
    rows = []
    for one in measures:
        name, form = units[one.measure]
        between = (
            "too few groups"
            if one.interval is None
            else f"{one.interval[0]:+{form}} to {one.interval[1]:+{form}}"
        )
        rows.append(
            f"<tr><td>{name}<td class=n>{one.baseline:{form}}<td class=n>{one.current:{form}}"
            f"<td class=n>{one.difference:+{form}}<td class=n>{between}<td class=n>{one.tasks}"
        )
    return (
        "<h2>Time and money a task</h2>\n<table><tr><th>median of<th>baseline<th>current"
        f"<th>median difference<th>interval<th>tasks{''.join(rows)}</table>"
    )


def _changes(one: Comparison) -> str:
    rows = "".join(
        f"<tr class={'changed' if change.changed else 'quiet'}><td>{change.what}"
        f"<td><code>{_short(change.baseline)}</code><td><code>{_short(change.current)}</code>"
        f"<td>{_change(change)}"
        for change in one.changes
    )
    return f"<h2>What changed</h2>\n<table><tr><th>what<th>baseline<th>current<th>{rows}</table>"


def _change(change: Change) -> str:
    if change.changed:
        return "changed"
    return "unknown" if change.current is None else "the same"


def _short(value: str | None) -> str:
    """Hashes are told apart by their beginnings; `comparison.json` has the whole."""
    if value is None:
        return "unknown"
    return _safe(f"{value[:16]}…" if HASH.fullmatch(value) else value)


def _left_out(one: Comparison) -> str:
    return "".join(
        f"<h2>Only in the {side}</h2>\n<p>{count} tasks, which count for neither arm:"
        f" {', '.join(f'<code>{_short(each)}</code>' for each in named[:NAMED_MAX])}"
        f"{' …' if count > NAMED_MAX else ''}</p>"
        for side, count, named in (
            ("baseline", one.counts["only_baseline"], one.only_baseline),
            ("current", one.counts["only_current"], one.only_current),
        )
        if count
    )


def _method(one: Comparison) -> str:
    passed = "the first model by itself" if one.counting == "own" else "any model"
    return (
        '<h2>How this was computed</h2>\n<p class="quiet">Rates have Wilson intervals over as many'
        " independent tasks as these are worth. The test changes the signs of whole groups, exactly; with"
        " independent tasks done once it is McNemar's. The interval of the difference draws whole groups"
        f" again, {one.resamples} times, with seed {one.seed}. A verdict other than “no evidence” takes"
        f" both. Counted as passed: {passed}.</p>"
    )


# --- side by side -------------------------------------------------------------------------------


def _side_by_side(one: Comparison, discordant: Sequence[Pair]) -> str:
    total = one.quality.better + one.quality.worse
    shown = "".join(_task(one, pair) for pair in discordant[:SHOWN_MAX])
    count = min(len(discordant), SHOWN_MAX)
    return (
        "<h2>Where they differ</h2>\n"
        f"<p>{one.quality.worse} tasks went worse and {one.quality.better} better; {count} of {total} are"
        " here, the largest differences first. Lines that only one of the answers has are marked.</p>\n"
        '<p><label>Show those that contain <input id="filter" type="search" autocomplete="off"></label>'
        f' <span id="shown" class="quiet">{count} of {count} tasks</span></p>\n{shown}'
    )


def _task(one: Comparison, pair: Pair) -> str:
    old, new = pair.baseline.share(one.counting), pair.current.share(one.counting)
    way = "better" if new > old else "worse"
    about = " ".join(_safe(word) for word in (pair.current.kind, pair.current.role) if word)
    return (
        f'<details><summary><b class="{way}">{way}</b> <code>{_safe(pair.task_id)}</code> {about}'
        f" {_percent(float(old))} to {_percent(float(new))}</summary>\n<div class=sides>"
        f"{_answer('baseline', pair.baseline, pair.current)}{_answer('current', pair.current, pair.baseline)}"
        "</div></details>\n"
    )


def _answer(side: str, result: TaskResult, other: TaskResult) -> str:
    findings = "".join(map(_finding, result.findings))
    more = result.findings_count - len(result.findings)
    return (
        f"<div><h3>{side}: {_safe(', '.join(result.outcomes))}</h3>"
        f'<pre dir="auto">{"".join(_lines(result, other))}</pre>'
        + (f"<ul>{findings}</ul>" if findings else "")
        + (f"<p>and {more} more</p>" if more > 0 else "")
        + "</div>"
    )


def _lines(result: TaskResult, other: TaskResult) -> Iterator[str]:
    """The lines of an answer, those marked that the other one has nowhere."""
    there = set(other.text.splitlines())
    for line in result.text.splitlines():
        yield f"{_safe(line)}\n" if line in there else f"<b>{_safe(line)}</b>\n"
    if result.text_length > len(result.text):
        yield f"… and {result.text_length - len(result.text)} characters more"


def _finding(finding: Finding) -> str:
    where = f" <code>{_safe(finding.path)}</code>" if finding.path else ""
    return f"<li><b>{_safe(finding.code)}</b>{where} {_safe(finding.message)}"
