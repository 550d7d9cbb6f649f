"""`stillhouse distill review`: people decide on what the rules leave to them, by hand or by a script."""

import getpass
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Final, get_args

import typer
from pydantic import ValidationError

from schemas.distill import Agreement, ReviewItem, ReviewPage, ReviewRequest
from schemas.review import Decision
from schemas.runs import RunOutput
from services.errors import InvalidRequest
from services.faults import reason_of
from stillhouse.client import GatewayClient
from stillhouse.output import JsonOption, console, print_json
from stillhouse.review import reviews
from stillhouse.review.corrections import Draft, edit_with_editor
from stillhouse.review.keyboard import TerminalKeyboard
from stillhouse.review.reviews import Feed, One
from stillhouse.review.screen import PAST, Screen
from stillhouse.review.session import Session, Source, Tally
from stillhouse.settings import load_settings

DECISIONS: Final = get_args(Decision)
QUEUE_ITEMS: Final = 100

EXAMPLES = """\
Examples:

  stillhouse distill review                             at a terminal; ? shows the keys

  stillhouse distill review --by ann --role welder --limit 20

  stillhouse distill review --by bob --second           also what others decided since the last score

  stillhouse distill review --by ann --id 9f86d0…       this piece alone, to change your mind

  stillhouse distill review --json --limit 5            the queue, for programs

  stillhouse distill review --decide reject --id 9f86d0… --by ann --note "wrong site"

  stillhouse distill review --decide correct --id 9f86d0… --correction answer.json

  stillhouse distill review --agreement
"""


def review(
    by: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who decides; your login name unless given.", show_default=False),
    ] = None,
    role: Annotated[
        str | None, typer.Option(help="Only what is of this job role.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many pieces.", show_default=False)
    ] = None,
    *,
    second: Annotated[
        bool,
        typer.Option("--second", help="Also what others decided since the last score, for a second opinion."),
    ] = False,
    decide: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(DECISIONS), help="Decide on --id without a terminal.", show_default=False
        ),
    ] = None,
    evidence_id: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="ID", help="This piece alone, whether or not it waits.", show_default=False
        ),
    ] = None,
    note: Annotated[str | None, typer.Option(help="Why.", show_default=False)] = None,
    correction: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The answer as it should have been; - reads standard input.",
            show_default=False,
        ),
    ] = None,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="Show how far reviewers agree (Krippendorff's alpha).")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Decide on what waits for a person, the most valuable decisions first.

    Decisions are in the log when they are confirmed. `materialize` and `score` put them into force.
    """
    name = by or _login_name()
    if decide is None:
        _refuse_without_decision(note=note, correction=correction)
    with GatewayClient(load_settings()) as gateway:
        if decide is not None:
            _decide(gateway, evidence_id, _asked(decide, name, note), correction, json=json)
        elif agreement:
            _show_agreement(reviews.agreement_of(gateway), json=json)
        elif not json:
            feed = Feed(gateway, role=role, undecided_by=name if second else None, items_max=limit)
            _sit(gateway, One(gateway, evidence_id) if evidence_id is not None else feed, name)
        elif evidence_id is not None:
            _print(reviews.item_of(gateway, evidence_id))
        else:
            _print(
                reviews.page_of(
                    gateway, limit=limit or QUEUE_ITEMS, role=role, undecided_by=name if second else None
                )
            )


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        raise typer.BadParameter("your login has no name; say who decides", param_hint="--by") from None


def _refuse_without_decision(**given: str | None) -> None:
    for name, value in given.items():
        if value is not None:
            raise typer.BadParameter("this belongs to --decide", param_hint=f"--{name}")


def _print(found: ReviewItem | ReviewPage) -> None:
    print_json(found.model_dump(mode="json", by_alias=True, exclude_none=True))


def _asked(decision: str, by: str, note: str | None) -> ReviewRequest:
    try:
        return ReviewRequest.model_validate(
            {"decision": decision, "by": by, **({"note": note} if note is not None else {})}
        )
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        field = str(first["loc"][0])
        hint = "--decide" if field == "decision" else f"--{field}"
        raise typer.BadParameter(reason_of(first), param_hint=hint) from None


# --- by a script ------------------------------------------------------------------------------


def _decide(
    gateway: GatewayClient, evidence_id: str | None, request: ReviewRequest, file: str | None, *, json: bool
) -> None:
    if evidence_id is None:
        raise typer.BadParameter("name the evidence that is decided on", param_hint="--id")
    if (request.decision == "correct") != (file is not None):
        raise typer.BadParameter(
            "this comes with --decide correct, and with no other", param_hint="--correction"
        )
    if file is not None:
        output = _correction(gateway, evidence_id, file)
        request = request.model_copy(update={"correction": output})
    kept = reviews.decide(gateway, evidence_id, request)
    if json:
        print_json(kept.model_dump(mode="json", by_alias=True, exclude_none=True))
    else:
        console().print(f"{PAST[kept.decision]}, kept as review {kept.review_id}")


def _correction(gateway: GatewayClient, evidence_id: str, file: str) -> RunOutput:
    """The correction in a file, held against the answer as the editor's would be."""
    output = reviews.item_of(gateway, evidence_id).evidence.output
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}", param_hint="--correction") from None
    return Draft.of(output).read(text, output)


def _show_agreement(found: Agreement, *, json: bool) -> None:
    if json:
        print_json(found.model_dump(mode="json"))
        return
    out = console()
    if found.alpha is None:
        out.print(f"agreement: no alpha, since {found.reason}")
    else:
        out.print(f"agreement: Krippendorff's alpha {found.alpha:.3f}")
    agreeing = f", pairs that agree {found.observed:.0%}" if found.observed is not None else ""
    out.print(f"reviewers {found.reviewers}, decided {found.decided}, by several {found.items}{agreeing}")


# --- at a terminal ----------------------------------------------------------------------------


def _sit(gateway: GatewayClient, feed: Source, name: str) -> None:
    out = console()
    by = _asked("accept", name, None).by
    if not (sys.stdin.isatty() and out.is_terminal):
        raise InvalidRequest(
            "reviewing needs a terminal; scripts say --decide accept --id ID, or read the queue by --json"
        )
    folder = Path(tempfile.mkdtemp(prefix="stillhouse-review-"))
    with TerminalKeyboard() as keyboard:
        session = Session(
            by=by,
            send=partial(reviews.decide, gateway),
            keyboard=keyboard,
            screen=Screen(out),
            edit=edit_with_editor,
            folder=folder,
        )
        tally = session.run(feed)
    _sum_up(tally, gateway)
    if tally.unsent is not None:
        out.print(f"not sent; this sends it:\n{tally.unsent}", soft_wrap=True)
        raise typer.Exit(1)
    shutil.rmtree(folder, ignore_errors=True)  # only here: what was typed outlives whatever goes wrong


def _sum_up(tally: Tally, gateway: GatewayClient) -> None:
    done = [f"{count} {PAST[decision]}" for decision, count in tally.decided.items()]
    done += [f"{tally.skipped} skipped"] if tally.skipped else []
    out = console()
    out.print(", ".join(done) or "nothing decided")
    if tally.decided:
        _show_agreement(reviews.agreement_of(gateway), json=False)
        out.print("`stillhouse distill materialize` and `stillhouse distill score` put decisions into force")
