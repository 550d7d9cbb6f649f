"""`stillhouse distill drift`: what changed between two windows of the evidence, or since a saved baseline."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from schemas.distill import Job
from schemas.drift import DriftProfile
from schemas.replay import Drift, InputDrift, OutputDrift, Window
from services import files
from services.errors import UpstreamError
from stillhouse.client import GatewayClient
from stillhouse.commands import jobs
from stillhouse.output import JsonOption, console, output_file, print_json
from stillhouse.settings import load_settings

EXAMPLES = """\
Examples:

  stillhouse distill drift                                      the later half against the earlier

  stillhouse distill drift --since 2026-11-09                   that week against all before it

  stillhouse distill drift --save-baseline november.json        measure everything, compare nothing

  stillhouse distill drift --baseline november.json --since 2026-12-01 --fail-on-drift
"""
DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
VALUES_SHOWN: Final = 3
FLIPS_SHOWN: Final = 10
DECIMALS: Final = {"length": 0, "latency": 0, "cost": 6}

TIME: Final = "a day (UTC) or an RFC 3339 time"


def _when(what: str) -> Any:
    return typer.Option(metavar="TIME", help=f"{what}: {TIME}.", show_default=False)


def drift(
    *,
    since: Annotated[str | None, _when("Where the window begins")] = None,
    until: Annotated[str | None, _when("Where the window ends")] = None,
    baseline_since: Annotated[str | None, _when("Where the baseline begins")] = None,
    baseline_until: Annotated[
        str | None, _when("Where the baseline ends; where the window begins unless given")
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Compare with what was saved earlier.", show_default=False
        ),
    ] = None,
    save_baseline: Annotated[
        Path | None,
        output_file(help="Keep the figures of the window, for another day."),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="Chance of a false alarm over all tests; 0.05 unless given.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Another seed draws otherwise.", show_default=False)
    ] = None,
    fail_on_drift: Annotated[
        bool, typer.Option("--fail-on-drift", help="Exit with 1 when what came out has drifted.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Compare two windows of the evidence: what went in apart from what came out."""
    windows = {
        "since": _time(since),
        "until": _time(until),
        "baseline_since": _time(baseline_since),
        "baseline_until": _time(baseline_until),
    }
    asked: dict[str, Any] = {"stage": "drift", **windows, "alpha": alpha, "seed": seed}
    if baseline is not None:
        asked["profile"] = _profile(baseline)
    elif save_baseline is not None and not windows["baseline_since"] and not windows["baseline_until"]:
        asked["measure_only"] = True
    job = _finished(asked, save_baseline)
    if job.state == "failed" or job.drift is None:
        jobs.end(job, json=json)
        return
    if json:
        print_json(job.drift.model_dump(mode="json"))
    else:
        _show(job.drift, console())
    if fail_on_drift and any(one.drifted for one in job.drift.outputs):
        raise typer.Exit(1)


def _finished(asked: Mapping[str, Any], save: Path | None) -> Job:
    """The job at its end, and the profile that it made where it is to be kept."""
    with GatewayClient(load_settings()) as gateway:
        job = jobs.finish(gateway, asked)
        if save is not None and job.state == "done":
            files.replace(save, b"".join(gateway.download(f"/v1/distill/drifts/{_profile_name(job)}")))
    return job


def _profile_name(job: Job) -> str:
    for product in job.products:
        if product.name.endswith(".profile.json"):
            return product.name.rpartition("/")[2]
    raise UpstreamError("the job made no profile; is this a Stillhouse gateway of this version?")


def _time(text: str | None) -> str | None:
    """A day as the moment it begins; what is no time is refused with the rest of the request."""
    return f"{text}T00:00:00Z" if text is not None and DAY.fullmatch(text) else text


def _profile(path: Path) -> dict[str, Any]:
    try:
        return DriftProfile.model_validate_json(path.read_bytes()).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise typer.BadParameter(
            f"{path} is no saved baseline: {where}{first['msg']}", param_hint="--baseline"
        ) from None


# --- on a terminal ------------------------------------------------------------------------------


def _show(drift: Drift, out: Console) -> None:
    for window in (drift.baseline, drift.current):
        out.print(_told(window))
    out.print(_inputs(drift.inputs))
    out.print(_outputs(drift.outputs))
    for flip in drift.flips[:FLIPS_SHOWN]:
        word = "accepted now" if flip.accepted else "no longer accepted"
        out.print(f"{word}: {flip.current_evidence_id} (was {flip.baseline_evidence_id})")
    if len(drift.flips) > FLIPS_SHOWN:
        out.print(f"… and {len(drift.flips) - FLIPS_SHOWN} more tasks; --json has them")
    changed = [_name(one) for one in drift.outputs if one.drifted]
    out.print(
        f"what came out has drifted: {', '.join(changed)}" if changed else "what came out has not drifted"
    )


def _told(window: Window) -> str:
    since = window.since.isoformat() if window.since else "the beginning"
    until = window.until.isoformat() if window.until else "the end"
    return f"{window.name}: {window.count} pieces of evidence, from {since} to {until}"


def _inputs(inputs: list[InputDrift]) -> Table:
    table = Table("input", "baseline", "current", "distance", "p", "")
    for one in inputs:
        table.add_row(
            one.property,
            _mix(one.baseline),
            _mix(one.current),
            f"{one.distance:.3f}",
            _p(one.p),
            _mark(one),
        )
    return table


def _mix(shares: Mapping[str, float]) -> str:
    """The most frequent values."""
    most = sorted(shares.items(), key=lambda one: (-one[1], one[0]))
    shown = [f"{value} {share:.0%}" for value, share in most[:VALUES_SHOWN]]
    more = len(most) - VALUES_SHOWN
    return "\n".join([*shown, f"… {more} more"] if more > 0 else shown) or "–"


def _outputs(outputs: list[OutputDrift]) -> Table:
    table = Table("output", "tasks", "baseline", "current", "difference", "interval", "p", "")
    for column in table.columns[1:7]:
        column.justify = "right"
    for one in outputs:
        low, high = one.interval or (None, None)
        table.add_row(
            _name(one),
            f"{one.baseline_tasks} / {one.current_tasks}",
            _figure(one, one.baseline),
            _figure(one, one.current),
            _figure(one, one.difference, sign="+"),
            f"{_figure(one, low, sign='+')} … {_figure(one, high, sign='+')}",
            _p(one.p),
            _mark(one),
        )
    return table


def _name(one: OutputDrift) -> str:
    return f"{one.metric} {one.key}" if one.key else one.metric


def _figure(one: OutputDrift, value: float | None, *, sign: str = "") -> str:
    """Shares in per cent, the others in their units."""
    if value is None:
        return "–"
    decimals = DECIMALS.get(one.metric)
    return f"{value:{sign}.1%}" if decimals is None else f"{value:{sign}.{decimals}f}"


def _p(p: float | None) -> str:
    return "–" if p is None else f"{p:.4f}" if p >= 0.0001 else "<0.0001"


def _mark(one: InputDrift | OutputDrift) -> str:
    return "drifted" if one.drifted else ""
