"""`stillhouse distill`: runs the stages that turn records into evidence and evidence into datasets."""

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from schemas.distill import Job, JobAccepted, JobRequest
from services.errors import Unavailable, UpstreamTimeout
from services.faults import reason_of
from stillhouse.client import GatewayClient
from stillhouse.commands import distill_offline
from stillhouse.commands.distill_progress import progress_bar
from stillhouse.output import JsonOption, console, print_json
from stillhouse.settings import load_settings

POLL_FIRST_S = 0.1
POLL_MAX_S = 1.0
POLL_FAILURES_MAX = 5  # in a row: a daemon that is being restarted is back sooner

EXAMPLES = """\
Examples:

  stillhouse distill materialize

  stillhouse distill score

  stillhouse distill export --kind sft --target openai

  stillhouse distill export --kind rag --json

  stillhouse distill audit --all                  on the data folder itself, no service needed
"""
MATERIALIZE_EXAMPLES = """\
Examples:

  stillhouse distill materialize                      the own log

  stillhouse distill materialize --source litellm     files that lie ready for import
"""
EXPORT_EXAMPLES = """\
Examples:

  stillhouse distill export --kind sft --target trl

  stillhouse distill export --kind preference --target openai --margin-min 1

  stillhouse distill export --kind sft --target openai --shares 0.9,0.05,0.05 --pii phone=quarantine

  stillhouse distill export --kind rag --holdout-days 14 --json
"""
JOBS_EXAMPLES = """\
Examples:

  stillhouse distill jobs 0198c0de-7a11-7000-8000-000000000001

  stillhouse distill jobs 0198c0de-7a11-7000-8000-000000000001 --wait
"""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    epilog=EXAMPLES,
    help="Turn records into evidence, and evidence into datasets.",
)


@app.command(epilog=MATERIALIZE_EXAMPLES)
def materialize(
    source: Annotated[
        str | None,
        typer.Option(
            help="Where records come from; distill names the sources it reads.",
            show_default=False,
        ),
    ] = None,
    *,
    json: JsonOption = False,
) -> None:
    """Make evidence of the records that came in since the last time."""
    _run({"stage": "materialize", "source": source}, json=json)


@app.command(epilog="Example: stillhouse distill score --json")
def score(*, json: JsonOption = False) -> None:
    """Sort the evidence: accepted, partially accepted, rejected, needs human review."""
    _run({"stage": "score"}, json=json)


@app.command(epilog=EXPORT_EXAMPLES)
def export(
    kind: Annotated[str, typer.Option(help="What to make: sft, preference, rag.")],
    target: Annotated[
        str | None,
        typer.Option(help="For which trainer; distill names the formats it writes.", show_default=False),
    ] = None,
    *,
    include_partial: Annotated[
        bool, typer.Option("--include-partial", help="Let partially accepted answers in.")
    ] = False,
    shares: Annotated[
        str | None,
        typer.Option(
            metavar="T,V,H",
            help="Shares of train, validation and holdout, which add up to 1. 0.8,0.1,0.1 unless given.",
            show_default=False,
        ),
    ] = None,
    holdout_days: Annotated[
        int | None, typer.Option(min=1, help="Also hold out the last days of the data.", show_default=False)
    ] = None,
    salt: Annotated[
        str | None, typer.Option(help="Another salt, another split of the same data.", show_default=False)
    ] = None,
    margin_min: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="How far apart the judgements of a preference pair are at least.",
            show_default=False,
        ),
    ] = None,
    pii: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT=HOW",
            help="What becomes of personal data: ssn, card, bank, phone, email or name = mask, quarantine or"
            " keep. May repeat. All are masked unless given.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a dataset of accepted evidence, with its manifest, provenance and receipt."""
    asked = {
        "stage": "export",
        "kind": kind,
        "target": target,
        "include_partial": include_partial or None,
        "shares": _shares(shares) if shares is not None else None,
        "holdout_days": holdout_days,
        "salt": salt,
        "margin_min": margin_min,
        "pii": _policy(pii) if pii else None,
    }
    _run(asked, json=json)


@app.command(epilog=JOBS_EXAMPLES)
def jobs(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="Which job, as its start named it.")],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end.")] = False,
    json: JsonOption = False,
) -> None:
    """Show how far a job is, and what it made. Exits with 1 when it failed."""
    with GatewayClient(load_settings()) as gateway:
        job = _follow(gateway, job_id) if wait else gateway.get(f"/v1/distill/jobs/{job_id}", Job)
    _end(job, json=json)


app.command(epilog=distill_offline.AUDIT_EXAMPLES)(distill_offline.audit)
app.command(epilog=distill_offline.KEYGEN_EXAMPLES)(distill_offline.keygen)


# --- what was asked for -----------------------------------------------------------------------


def _shares(text: str) -> dict[str, float]:
    names = ("train", "validation", "holdout")
    try:
        return dict(zip(names, map(float, text.split(",")), strict=True))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not three numbers such as 0.8,0.1,0.1", param_hint="--shares"
        ) from None


def _policy(choices: list[str]) -> dict[str, str]:
    parted = [choice.partition("=") for choice in choices]
    for choice, (_, sign, _) in zip(choices, parted, strict=True):
        if not sign:
            raise typer.BadParameter(
                f"{choice!r} is not WHAT=HOW, such as phone=quarantine", param_hint="--pii"
            )
    return {what: how for what, _, how in parted}


def _request(asked: Mapping[str, Any]) -> JobRequest:
    try:
        return JobRequest.model_validate({name: value for name, value in asked.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = [str(part) for part in first["loc"]]
        hint = f"--{where[0].replace('_', '-')}" if where else "the options"
        inside = f"{where[-1]}: " if len(where) > 1 else ""
        raise typer.BadParameter(f"{inside}{reason_of(first)}", param_hint=hint) from None


# --- a job, to its end ------------------------------------------------------------------------


def _run(asked: Mapping[str, Any], *, json: bool) -> None:
    """Start a job, follow it to its end, and exit with 1 when it failed."""
    # Only what was asked for is sent: a stage refuses options that are not its own, even at their defaults.
    body = _request(asked).model_dump(mode="json", exclude_unset=True)
    with GatewayClient(load_settings()) as gateway:
        job_id = gateway.post("/v1/distill/jobs", JobAccepted, body).job_id
        job = _follow(gateway, job_id)
    _end(job, json=json)


def _end(job: Job, *, json: bool) -> None:
    if json:
        print_json(job.model_dump(mode="json", exclude_none=True))
    else:
        _show(job, console())
    if job.state == "failed":
        raise typer.Exit(1)


def _follow(gateway: GatewayClient, job_id: str) -> Job:
    out = console(stderr=True)  # so that --json leaves stdout to programs
    if not out.is_terminal:
        return _poll(gateway, job_id, lambda job: out.print(f"{job.stage}: {job.state}, {job.progress:.0%}"))
    with progress_bar(out, "queued") as report:
        return _poll(gateway, job_id, lambda job: report(f"{job.stage} {job.state}", job.progress))


def _poll(gateway: GatewayClient, job_id: str, report: Callable[[Job], None]) -> Job:
    """Ask until the job has ended; `report` hears of every change. A few failures in a row are forgiven."""
    wait_s, failures = POLL_FIRST_S, 0
    last: Job | None = None
    while True:
        try:
            job = gateway.get(f"/v1/distill/jobs/{job_id}", Job)
            failures = 0
        except (Unavailable, UpstreamTimeout):
            failures += 1
            if failures >= POLL_FAILURES_MAX:
                raise
        else:
            if job != last:
                report(job)
                last = job
            if job.state in {"done", "failed"}:
                return job
        time.sleep(wait_s)
        wait_s = min(wait_s * 1.5, POLL_MAX_S)


def _show(job: Job, out: Console) -> None:
    counts = ", ".join(f"{name} {count}" for name, count in job.counts.items())
    out.print(f"{job.stage}: {job.state}{f' ({counts})' if counts else ''}")
    if job.state not in {"done", "failed"}:
        out.print(f"progress {job.progress:.0%}")
    if job.dataset_id is not None:
        out.print(f"dataset {job.dataset_id}")
    if job.receipt is not None:
        out.print(f"receipt {job.receipt.file} {job.receipt.sha256}")
    if job.error is not None:
        out.print(f"{job.error.code}: {job.error.message}")
