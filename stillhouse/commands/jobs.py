"""Jobs of distill, as commands see them: started, followed to their end, shown."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import typer
from pydantic import ValidationError
from rich.console import Console

from schemas.distill import Job, JobAccepted, JobRequest
from services.errors import Unavailable, UpstreamTimeout
from services.faults import reason_of
from stillhouse.client import GatewayClient
from stillhouse.commands.progress import progress
from stillhouse.output import console, print_json
from stillhouse.settings import load_settings

ARGUMENTS = {"--current": "REPLAY", "--baseline": "--against", "--profile": "--baseline"}
"""What people have typed for these fields of a job."""
POLL_FIRST_S = 0.1
POLL_MAX_S = 1.0
POLL_FAILURES_MAX = 5  # in a row: a daemon that is being restarted is back sooner


def _request(asked: Mapping[str, Any]) -> JobRequest:
    try:
        return JobRequest.model_validate({name: value for name, value in asked.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = [str(part) for part in first["loc"]]
        option = f"--{where[0].replace('_', '-')}" if where else "the options"
        hint = ARGUMENTS.get(option, option)
        inside = f"{where[-1]}: " if len(where) > 1 else ""
        raise typer.BadParameter(f"{inside}{reason_of(first)}", param_hint=hint) from None


def run(asked: Mapping[str, Any], *, json: bool) -> None:
    """Start a job, follow it to its end, show it, and exit with 1 when it failed."""
    with GatewayClient(load_settings()) as gateway:
        job = finish(gateway, asked)
    end(job, json=json)


def finish(gateway: GatewayClient, asked: Mapping[str, Any]) -> Job:
    """Start a job of what was asked, Nones left out, and follow it to its end, done or failed."""
    # Only what was asked for is sent: a stage refuses options that are not its own, even at their defaults.
    body = _request(asked).model_dump(mode="json", exclude_unset=True)
    job_id = gateway.post("/v1/distill/jobs", JobAccepted, body).job_id
    try:
        return follow(gateway, job_id)
    except KeyboardInterrupt:
        told = f"the job goes on; `stillhouse distill jobs {job_id} --wait` follows it again"
        console(stderr=True).print(told)
        raise


def end(job: Job, *, json: bool) -> None:
    """Show a job, and exit with 1 when it failed."""
    if json:
        print_json(job.model_dump(mode="json", exclude_none=True))
    else:
        show(job, console())
    if job.state == "failed":
        raise typer.Exit(1)


def follow(gateway: GatewayClient, job_id: str) -> Job:
    """Tell on stderr how far a job is, until it is done or failed."""
    out = console(stderr=True)  # so that --json leaves stdout to programs
    if not out.is_terminal:
        return _poll(gateway, job_id, lambda job: out.print(f"{job.stage}: {job.state}, {job.progress:.0%}"))
    with progress(out, "queued") as report:
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


def show(job: Job, out: Console) -> None:
    """What a job came to, in a few lines."""
    counts = ", ".join(f"{name} {count}" for name, count in job.counts.items())
    out.print(f"{job.stage}: {job.state}{f' ({counts})' if counts else ''}")
    if job.state not in {"done", "failed"}:
        out.print(f"progress {job.progress:.0%}")
    if job.dataset_id is not None:
        out.print(f"dataset {job.dataset_id}")
    if job.replay_id is not None:
        out.print(f"replay {job.replay_id}")
    if job.receipt is not None:
        out.print(f"receipt {job.receipt.file} {job.receipt.sha256}")
    if job.error is not None:
        out.print(f"{job.error.code}: {job.error.message}")
