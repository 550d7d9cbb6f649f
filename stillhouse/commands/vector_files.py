"""`stillhouse vector export|import|snapshot|restore|reembed`: collections out, in, and made anew."""

import time
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, Protocol, cast
from urllib.parse import quote

import typer

from schemas.vectors import (
    Collection,
    CollectionSpec,
    ExportResponse,
    ReembedState,
    Snapshot,
    UpsertResponse,
)
from services.errors import Conflict, InvalidRequest, NotFound, PlatformError
from stillhouse.client import GatewayClient
from stillhouse.commands.progress import progress
from stillhouse.output import JsonOption, console, output_file, print_json
from stillhouse.settings import load_settings

PAGE: Final = 500
POLL_S: Final = 0.5

EXPORT_EXAMPLES: Final = """\
Examples:

  stillhouse vector export docs docs.parquet
"""
IMPORT_EXAMPLES: Final = """\
Examples:

  stillhouse vector import docs docs.parquet            as it was, made anew if it is not there

  stillhouse vector import docs docs.parquet --texts    embedded by the collection's model, not as it was
"""
SNAPSHOT_EXAMPLES: Final = """\
Examples:

  stillhouse vector snapshot docs                       kept by vectord

  stillhouse vector snapshot docs --to docs.zip         and fetched
"""
RESTORE_EXAMPLES: Final = """\
Examples:

  stillhouse vector restore docs docs.zip               from a file

  stillhouse vector restore docs --snapshot 20261122t081500-a1b2c3
"""

Name = Annotated[str, typer.Argument(help="The collection.")]


class Parquet(Protocol):
    """The module that reads and writes the files."""

    PointWriter: Any
    PointReader: Any


def register(app: typer.Typer) -> None:
    """Put the commands into `stillhouse vector`."""
    app.command(epilog=EXPORT_EXAMPLES)(export)
    app.command(name="import", epilog=IMPORT_EXAMPLES)(import_)
    app.command(epilog=SNAPSHOT_EXAMPLES)(snapshot)
    app.command(epilog=RESTORE_EXAMPLES)(restore)
    app.command(epilog="Example: stillhouse vector reembed docs --model nomic-embed-text")(reembed)


def export(
    name: Name,
    file: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
    *,
    json: JsonOption = False,
) -> None:
    """Write every point, with its vector, to a Parquet file."""
    parquet = _parquet()
    with GatewayClient(load_settings()) as gateway, progress(console(stderr=True), "export") as show:
        collection = gateway.get(_path(name), Collection)
        cursor: str | None = None
        with parquet.PointWriter(file, collection) as writer:
            while True:
                body = {"limit": PAGE, **({"cursor": cursor} if cursor is not None else {})}
                page = gateway.post(_path(name, "/points/export"), ExportResponse, body)
                writer.add(page.points)
                show(f"{writer.rows} points", min(1.0, writer.rows / max(1, collection.count)))
                cursor = page.cursor
                if cursor is None:
                    break
    _say({"collection": name, "points": writer.rows, "file": str(file)}, json=json)


def import_(
    name: Name,
    file: Annotated[Path, typer.Argument(help="A Parquet file with columns `id` and `vector` or `text`.")],
    *,
    texts: Annotated[
        bool, typer.Option("--texts", help="Embed the texts anew; take vectors only where there is none.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write the points of a Parquet file. A collection that is not there is made as the exported one was."""
    reader = _parquet().PointReader(file)
    with GatewayClient(load_settings()) as gateway, progress(console(stderr=True), "import") as show:
        _check_model(_target(gateway, name, reader.collection), reader.collection, texts=texts)
        done = 0
        for points in reader.points(PAGE, texts_only=texts):
            try:
                gateway.put(_path(name, "/points"), UpsertResponse, {"points": points})
            except PlatformError as error:
                error.message += f" (points from row {done} on of {file}; {done} are written)"
                raise
            done += len(points)
            show(f"{done} points", done / max(1, reader.rows))
    _say({"collection": name, "points": done, "file": str(file)}, json=json)


def _target(gateway: GatewayClient, name: str, exported: Collection | None) -> Collection:
    try:
        return gateway.get(_path(name), Collection)
    except NotFound:
        if exported is None:
            raise
    fields = CollectionSpec.model_fields.keys()
    spec = {key: value for key, value in exported.model_dump(exclude_none=True).items() if key in fields}
    return gateway.put(_path(name), Collection, spec)


def _check_model(target: Collection, exported: Collection | None, *, texts: bool) -> None:
    if texts or exported is None or exported.model_digest == target.model_digest:
        return
    raise Conflict(
        f"the file's vectors were made by {exported.model!r} at {exported.model_digest}, and {target.name!r}"
        f" has {target.model!r} at {target.model_digest}: they cannot be compared. Use --texts to embed anew",
        code="model_digest_mismatch",
    )


def snapshot(
    name: Name,
    to: Annotated[Path | None, output_file("--to", help="Fetch the file, too.")] = None,
    *,
    json: JsonOption = False,
) -> None:
    """Have a snapshot made: one file, from which the collection can be restored anywhere."""
    with GatewayClient(load_settings()) as gateway, progress(console(stderr=True), "snapshot") as show:
        made = gateway.post(_path(name, "/snapshots"), Snapshot, {})
        if to is not None:
            draft = to.with_name(f".{to.name}.part")
            try:
                with draft.open("wb") as out:
                    for chunk in gateway.download(_path(name, f"/snapshots/{made.name}")):
                        out.write(chunk)
                        show("fetch", min(1.0, out.tell() / max(1, made.bytes)))
                draft.replace(to)
            finally:
                draft.unlink(missing_ok=True)
    _say(made.model_dump(mode="json") | ({"file": str(to)} if to else {}), json=json)


def restore(
    name: Name,
    file: Annotated[
        Path | None, typer.Argument(help="A file that `snapshot --to` fetched.", show_default=False)
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--snapshot", help="One that vectord has: its name.", show_default=False),
    ] = None,
    *,
    json: JsonOption = False,
) -> None:
    """Make a collection, which must not exist, of a snapshot."""
    if (file is None) == (key is None):
        raise typer.BadParameter("name a FILE or a --snapshot", param_hint="FILE")
    with GatewayClient(load_settings()) as gateway:
        if file is not None:
            try:
                content = file.read_bytes()
            except OSError as error:
                raise InvalidRequest(f"{file} cannot be read: {error.strerror}") from error
            key = f"brought-{time.time_ns():x}"
            gateway.upload(_path(name, f"/snapshots/{key}"), Snapshot, content)
        restored = gateway.post(_path(name, "/restore"), Collection, {"snapshot": key})
        if file is not None:
            gateway.delete_if_there(_path(name, f"/snapshots/{key}"))
    _say({"collection": restored.name, "points": restored.count}, json=json)


def reembed(
    name: Name,
    model: Annotated[
        str | None,
        typer.Option(
            help="Another model; the collection's own as it is now unless given.", show_default=False
        ),
    ] = None,
    *,
    json: JsonOption = False,
) -> None:
    """Embed every text again. The old vectors are searched until the new ones are all there."""
    path = _path(name, "/reembed")
    with GatewayClient(load_settings()) as gateway, progress(console(stderr=True), "reembed") as show:
        state = gateway.post(path, ReembedState, {"model": model} if model is not None else {})
        while state.state == "running":
            show(f"{state.done} of {state.total}", state.done / max(1, state.total))
            time.sleep(POLL_S)
            state = gateway.get(path, ReembedState)
    if state.state == "failed":
        raise Conflict(f"{name!r} is as it was: {state.error}")
    _say({"collection": name, "model": state.model, "points": state.done}, json=json)


def _parquet() -> Parquet:
    try:  # loaded here and not above: no other command needs it, and it takes its time
        return cast("Parquet", import_module("stillhouse.commands.vector_parquet"))
    except ModuleNotFoundError as error:
        console(stderr=True).print(f"This needs {error.name}: pip install 'stillhouse[cli]'")
        raise typer.Exit(1) from None


def _path(name: str, rest: str = "") -> str:
    return f"/v1/collections/{quote(name, safe='')}{rest}"


def _say(what: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(what)
    else:
        console().print(", ".join(f"{key} {value}" for key, value in what.items()))
