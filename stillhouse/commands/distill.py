"""`stillhouse distill`: runs the stages that turn records into evidence and evidence into datasets."""

from typing import Annotated

import typer

from schemas.distill import Job
from stillhouse.client import GatewayClient
from stillhouse.commands import comparison, distill_drift, distill_index, distill_offline, distill_review
from stillhouse.commands.jobs import end, follow, run
from stillhouse.output import JsonOption
from stillhouse.settings import load_settings

EXAMPLES = """\
Examples:

  stillhouse distill materialize

  stillhouse distill score

  stillhouse distill export --kind sft --target openai

  stillhouse distill export --kind rag --json

  stillhouse distill index                        so that replays find earlier work

  stillhouse distill drift --since 2026-11-09     what changed since then

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
    run({"stage": "materialize", "source": source}, json=json)


@app.command(epilog="Example: stillhouse distill score --json")
def score(*, json: JsonOption = False) -> None:
    """Sort the evidence: accepted, partially accepted, rejected, needs human review."""
    run({"stage": "score"}, json=json)


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
    pii: distill_index.PiiOption = None,
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
        "pii": distill_index.policy(pii) if pii else None,
    }
    run(asked, json=json)


@app.command(epilog=JOBS_EXAMPLES)
def jobs(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="Which job, as its start named it.")],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end.")] = False,
    json: JsonOption = False,
) -> None:
    """Show how far a job is, and what it made. Exits with 1 when it failed."""
    with GatewayClient(load_settings()) as gateway:
        job = follow(gateway, job_id) if wait else gateway.get(f"/v1/distill/jobs/{job_id}", Job)
    end(job, json=json)


app.command(epilog=distill_index.EXAMPLES)(distill_index.index)
app.command(epilog=comparison.EXAMPLES)(comparison.compare)
app.command(epilog=distill_drift.EXAMPLES)(distill_drift.drift)
app.command(epilog=distill_review.EXAMPLES)(distill_review.review)
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
