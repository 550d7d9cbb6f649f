"""`stillhouse distill compare`: two replays of the same tasks side by side, and a gate for builds."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from schemas.comparison import Arm, Comparison, Counting, MedianDifference, Rate, Unit
from stillhouse.client import GatewayClient
from stillhouse.commands.jobs import end, finish
from stillhouse.output import JsonOption, console, output_file, print_json
from stillhouse.review.visible import visible
from stillhouse.settings import load_settings

EXAMPLES = """\
Examples:

  stillhouse distill compare small                          against the recorded answers

  stillhouse distill compare small --against large --html report.html

  stillhouse distill compare tuesday --against monday --gate "not worse at 95 %"

  stillhouse distill compare small --against large --pass any --json

Gates: "not worse at 95 %", "not worse than 2 points at 95 %", "better at 95 %", with other numbers as well.
Exit status: 0 done, 1 the gate failed or there is nothing to compare, 2 usage.
"""
NAMED_MAX: Final = 5
STYLES: Final = {"better": "green", "worse": "red", "no evidence": "yellow"}

AgainstOption = Annotated[
    str, typer.Option(metavar="REPLAY", help="The baseline; `recorded` is what was answered at the time.")
]
GateOption = Annotated[
    str | None,
    typer.Option(help='Exit with 1 unless this holds: "not worse at 95 %".', show_default=False),
]
HtmlOption = Annotated[
    Path | None,
    output_file(help="Write the report there."),
]
PassOption = Annotated[
    Counting, typer.Option("--pass", help="Which model may have passed: the first by its own, or any.")
]

IndependentOption = Annotated[
    Unit,
    typer.Option(
        help="What is independent of the rest: a group, near duplicates included, or any piece of work, so"
        " that tasks of one template count one by one."
    ),
]


def compare(
    current: Annotated[str, typer.Argument(metavar="REPLAY", help="The replay in question.")],
    against: AgainstOption = "recorded",
    gate: GateOption = None,
    *,
    confidence: Annotated[
        float | None,
        typer.Option(
            min=0.5, max=0.999, help="Of intervals and verdict; 0.95 unless given.", show_default=False
        ),
    ] = None,
    pass_: PassOption = "own",  # noqa: S107 - nobody's password
    seed: Annotated[int, typer.Option(min=0, help="Of the drawing for intervals.")] = 0,
    across_policies: Annotated[
        bool,
        typer.Option("--across-policies", help="Compare although different validator policies judged."),
    ] = False,
    independent: IndependentOption = "group",
    html: HtmlOption = None,
    json: JsonOption = False,
) -> None:
    """Say whether a replay is better or worse than another, or that nobody can tell."""
    asked = {
        "baseline": against,
        "current": current,
        "gate": gate,
        "confidence": confidence,
        "counting": pass_,
        "independent": independent,
        "seed": seed,
        "across_policies": across_policies,
    }
    with GatewayClient(load_settings()) as gateway:
        compared(gateway, asked, html=html, json=json)


def compared(
    gateway: GatewayClient, asked: Mapping[str, Any], *, html: Path | None = None, json: bool = False
) -> None:
    """Compare as asked (the fields of `ComparisonFields`), show it, and exit with 1 when the gate failed."""
    job = finish(gateway, {"stage": "compare", **asked})
    made = job.comparison
    if made is None:
        end(job, json=json)
        return
    if html is not None:
        save(gateway, made, html)
    if json:
        print_json(made.model_dump(mode="json"))
    else:
        show(made, console())
        if job.receipt is not None:
            console().print(f"receipt {job.receipt.file} {job.receipt.sha256}")
    if job.state == "failed":
        raise typer.Exit(1)


def save(gateway: GatewayClient, made: Comparison, to: Path) -> None:
    """Fetch the report for people."""
    path = f"/v1/distill/comparisons/{made.comparison_id}/files/report.html"
    to.write_bytes(b"".join(gateway.download(path)))


def show(made: Comparison, out: Console) -> None:
    """The comparison as tables, the verdict last."""
    out.print(_arms(made))
    out.print(_figures(made))
    if made.roles:
        out.print(_roles(made))
    for change in made.changes:
        if change.changed:
            out.print(f"changed: {change.what} from {_hash(change.baseline)} to {_hash(change.current)}")
    for way, tasks, count in (
        ("worse", made.worse, made.quality.worse),
        ("better", made.better, made.quality.better),
    ):
        if tasks:
            named = ", ".join(task.evidence_id[:16] for task in tasks[:NAMED_MAX])
            out.print(f"{way}: {count} tasks: {named}{' …' if count > NAMED_MAX else ''}")
    for note in made.notes:
        out.print(f"note: {note}")
    out.print(f"{made.verdict}: {made.reason}", style=STYLES[made.verdict])
    if made.gate is not None:
        word, style = ("passed", "green") if made.gate.passed else ("failed", "red")
        out.print(f"gate {made.gate.gate!r} {word}: {made.gate.reason}", style=style)


def _arms(made: Comparison) -> Table:
    table = Table("arm", "replay", "tasks", "passed by itself", "with escalation", "cost, USD")
    for side, arm in (("baseline", made.baseline), ("current", made.current)):
        table.add_row(side, arm.replay_id, str(arm.tasks), _rate(arm.own), _rate(arm.any), _cost(arm))
    return table


def _figures(made: Comparison) -> Table:
    quality = made.quality
    low, high = (100 * end for end in quality.interval)
    table = Table("of current against baseline", "value")
    table.add_row("tasks, independent groups", f"{quality.tasks}, {quality.groups}")
    table.add_row("difference", f"{100 * quality.difference:+.1f} points ({low:+.1f} to {high:+.1f})")
    table.add_row("better, worse", f"{quality.better}, {quality.worse} tasks")
    table.add_row("exact test over groups", f"p = {quality.p:.3g}")
    mcnemar = "does not apply" if quality.mcnemar_p is None else f"p = {quality.mcnemar_p:.3g}"
    table.add_row("McNemar's exact test", mcnemar)
    least = "none" if quality.detectable is None else f"{100 * quality.detectable:.1f} points"
    table.add_row("least difference that such data show", least)
    for measure in made.measures:
        table.add_row(f"median {measure.measure}, difference", _median(measure))
    return table


def _roles(made: Comparison) -> Table:
    """Without a verdict by role; `p` is corrected for there being several."""
    table = Table("role", "tasks, groups", "baseline", "current", "difference, points", "p, corrected")
    for part in made.roles:
        quality = part.quality
        low, high = (100 * end for end in quality.interval)
        table.add_row(
            "(none)" if part.role is None else visible(part.role),
            f"{quality.tasks}, {quality.groups}",
            _rate(part.baseline),
            _rate(part.current),
            f"{100 * quality.difference:+.1f} ({low:+.1f} to {high:+.1f})",
            f"{part.p_corrected:.3g}",
        )
    return table


def _rate(rate: Rate) -> str:
    low, high = (100 * end for end in rate.interval)
    return f"{100 * rate.rate:.1f} % ({low:.1f} to {high:.1f})"


def _cost(arm: Arm) -> str:
    return "unknown" if arm.cost_usd is None else f"{arm.cost_usd:.4f}"


def _median(one: MedianDifference) -> str:
    between = "" if one.interval is None else f" ({one.interval[0]:+.4g} to {one.interval[1]:+.4g})"
    return f"{one.baseline:.4g} to {one.current:.4g}, {one.difference:+.4g}{between}"


def _hash(value: str | None) -> str:
    """Hashes are told apart by their beginnings; --json has the whole."""
    if value is None:
        return "unknown"
    return f"{value[:16]}…" if re.fullmatch(r"[0-9a-f]{32,}", value) else value
