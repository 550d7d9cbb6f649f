"""`stillhouse distill index`: accepted answers into vectord, to be examples for tasks of other groups."""

from typing import Annotated

import typer

from stillhouse.commands.jobs import run
from stillhouse.output import JsonOption

EXAMPLES = """\
Examples:

  stillhouse distill index

  stillhouse distill index --include-partial --pii phone=quarantine

  stillhouse distill index --collection trial --embed-model nomic-embed-text --json
"""

PiiOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHAT=HOW",
        help="What becomes of personal data: ssn, card, bank, phone, email or name = mask, quarantine or"
        " keep. May repeat. All are masked unless given.",
        show_default=False,
    ),
]


def index(
    collection: Annotated[
        str | None,
        typer.Option(help="The collection to bring up to date; distilled unless given.", show_default=False),
    ] = None,
    embed_model: Annotated[
        str | None,
        typer.Option(
            help="The model that finds texts; DISTILL_EMBED_MODEL unless given.", show_default=False
        ),
    ] = None,
    *,
    include_partial: Annotated[
        bool, typer.Option("--include-partial", help="Let partially accepted answers in.")
    ] = False,
    pii: PiiOption = None,
    json: JsonOption = False,
) -> None:
    """Index accepted answers in vectord, so that replays can show them to tasks of other groups."""
    asked = {
        "stage": "index",
        "collection": collection,
        "embed_model": embed_model,
        "include_partial": include_partial or None,
        "pii": policy(pii) if pii else None,
    }
    run(asked, json=json)


def policy(choices: list[str]) -> dict[str, str]:
    """`["phone=quarantine"]` as the policy that it means."""
    parted = [choice.partition("=") for choice in choices]
    for choice, (_, sign, _) in zip(choices, parted, strict=True):
        if not sign:
            raise typer.BadParameter(
                f"{choice!r} is not WHAT=HOW, such as phone=quarantine", param_hint="--pii"
            )
    return {what: how for what, _, how in parted}
