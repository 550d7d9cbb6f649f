"""`stillhouse vector migrate`: a collection to another engine, while it is served."""

import time
from typing import Annotated, Final, Literal
from urllib.parse import quote

import typer

from schemas.vectors import Collection, Migration
from services.errors import Conflict
from stillhouse.client import GatewayClient
from stillhouse.commands.progress import progress
from stillhouse.output import JsonOption, console, print_json
from stillhouse.settings import load_settings

POLL_S: Final = 0.5
EXAMPLES: Final = """\
Examples:

  stillhouse vector migrate docs --to lance             beyond memory, on disk or an object store

  stillhouse vector migrate docs --to qdrant            beyond one machine
"""


def migrate(
    name: Annotated[str, typer.Argument(help="The collection.")],
    to: Annotated[Literal["edge", "lance", "qdrant"], typer.Option("--to", help="The engine to move it to.")],
    *,
    json: JsonOption = False,
) -> None:
    """Move a collection to another engine. It is served throughout; a failure leaves it where it was."""
    path = f"/v1/collections/{quote(name, safe='')}"
    with GatewayClient(load_settings()) as gateway, progress(console(stderr=True), "migrate") as show:
        state: Migration | None = gateway.post(f"{path}/migrate", Migration, {"engine": to})
        while state is not None and state.state == "running":
            show(f"{state.done} of {state.total}", state.done / max(1, state.total))
            time.sleep(POLL_S)
            state = gateway.get(path, Collection).migration
    if state is None:
        raise Conflict(f"vectord was started anew meanwhile; GET {path} says which engine serves {name!r}")
    if state.state == "failed":
        raise Conflict(f"{name!r} is as it was: {state.error}")
    if json:
        print_json({"collection": name} | state.model_dump(mode="json", exclude_none=True))
    else:
        console().print(f"{name} is on {to} now: {state.done} points, recall@10 {state.recall:.3f}")
