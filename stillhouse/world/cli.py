"""The generator as a command."""

from datetime import datetime, time
from pathlib import Path
from typing import Annotated

import orjson
import typer

from stillhouse.world.files import write
from stillhouse.world.records import Spec

_USAGE = 2
_USUAL = Spec()
_USUAL_DAY = datetime.combine(_USUAL.as_of, time())

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

EPILOG = """Examples:

python -m stillhouse.world data/world

python -m stillhouse.world data/world --seed 11 --as-of 2027-03-01

python -m stillhouse.world /tmp/large --workers 500000 --orders 2000
"""


@app.command(epilog=EPILOG)
def make(  # noqa: PLR0917 - typer reads one parameter an option
    folder: Annotated[Path, typer.Argument(help="Where the files go; made if it does not exist.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = _USUAL.seed,
    workers: Annotated[int, typer.Option(help="Rows of the roster.")] = _USUAL.workers,
    orders: Annotated[int, typer.Option(help="Open job orders.")] = _USUAL.orders,
    as_of: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="The day the roster speaks for.")
    ] = _USUAL_DAY,
    notes_per_role: Annotated[int, typer.Option(help="Playbook notes of each role.")] = _USUAL.notes_per_role,
    messages: Annotated[int, typer.Option(help="Message drafts, half of them bad.")] = _USUAL.messages,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a made-up staffing agency: roster, job orders, playbooks, message drafts.

    All of it is invented: names are random, telephone numbers and mail domains are set aside for fiction.
    """
    try:
        spec = Spec(seed, workers, orders, as_of.date(), notes_per_role, messages)
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_USAGE) from error
    made = write(folder, spec)
    if as_json:
        files = {file: {"records": made.counts[file], "sha256": made.sha256[file]} for file in made.counts}
        typer.echo(orjson.dumps({"folder": str(folder), "files": files}).decode())
        return
    for file, count in made.counts.items():
        typer.echo(f"{folder / file}  {count} record{'s' * (count != 1)}  sha256 {made.sha256[file][:12]}")
