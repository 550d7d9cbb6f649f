"""`stillhouse distill`: runs the stages that turn records into evidence and evidence into datasets."""

import time
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from schemas.distill import Job, JobAccepted, JobRequest
from services.errors import Unavailable, UpstreamTimeout
from stillhouse.client import GatewayClient
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
"""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    epilog=EXAMPLES,
    help="Turn records into evidence, and evidence into datasets.",
)


@app.command()
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
    _run(JobRequest(stage="materialize", source=source), json=json)


@app.command()
def score(*, json: JsonOption = False) -> None:
    """Sort the evidence: accepted, partially accepted, rejected, needs human review."""
    _run(JobRequest(stage="score"), json=json)


@app.command()
def export(
    kind: Annotated[str, typer.Option(help="What to make: sft, preference, rag.")],
    target: Annotated[
        str | None,
        typer.Option(help="For which trainer; distill names the formats it writes.", show_default=False),
    ] = None,
    *,
    json: JsonOption = False,
) -> None:
    """Write a dataset of accepted evidence, with its manifest."""
    _run(JobRequest(stage="export", kind=kind, target=target), json=json)


def _run(request: JobRequest, *, json: bool) -> None:
    """Start a job, follow it to its end, and exit with 1 when it failed."""
    with GatewayClient(load_settings()) as gateway:
        job_id = gateway.post("/v1/distill/jobs", JobAccepted, request).job_id
        # Progress goes to stderr, so that --json leaves stdout to programs.
        job = _follow(gateway, job_id, console(stderr=True))
    if json:
        print_json(job.model_dump(mode="json", exclude_none=True))
    else:
        _show(job, console())
    if job.state == "failed":
        raise typer.Exit(1)


def _follow(gateway: GatewayClient, job_id: str, out: Console) -> Job:
    if not out.is_terminal:
        return _poll(gateway, job_id, lambda job: out.print(f"{job.stage}: {job.state}, {job.progress:.0%}"))
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True) as progress:
        bar = progress.add_task("queued", total=1.0)
        return _poll(
            gateway,
            job_id,
            lambda job: progress.update(bar, description=f"{job.stage} {job.state}", completed=job.progress),
        )


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
    if job.dataset_id is not None:
        out.print(f"dataset {job.dataset_id}")
    if job.error is not None:
        out.print(f"{job.error.code}: {job.error.message}")
