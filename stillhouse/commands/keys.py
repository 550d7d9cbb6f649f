"""`stillhouse keys`: makes, lists and revokes the keys that the gateway asks for."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError
from rich.text import Text

from schemas.chat import GateSpec
from services.errors import InvalidRequest
from services.keys import DEFAULT_SCOPES, SCOPES, KeyGrant, KeyRecord, KeyStore, parse_expiry
from stillhouse.output import JsonOption, console, print_json
from stillhouse.settings import load_settings
from stillhouse.tables import Column, fitted

GROUP_EXAMPLES = """\
Examples:

  stillhouse keys create --name laptop

  stillhouse keys list

  stillhouse keys revoke laptop
"""

COLUMNS: Final = (
    Column("id"),
    Column("name"),
    Column("state"),
    Column("scopes", wraps=True),
    Column("roles", wraps=True),
    Column("rpm", right=True),
    Column("tpm", right=True),
    Column("created"),
    Column("expires"),
)
FIRST_NEEDED: Final = ("id", "name", "state", "expires", "scopes", "roles", "rpm", "tpm", "created")

app = typer.Typer(
    no_args_is_help=True,
    help="Make, list and revoke the keys that the gateway asks for.",
    add_completion=False,
    epilog=GROUP_EXAMPLES,
)

EXAMPLES = """\
Examples:

  stillhouse keys create --name laptop

  stillhouse keys create --name ci --scope embed --scope vectors:read --rpm 600 --expires 30d

  stillhouse keys create --name toledo --role "forklift operator" --expires 2030-01-31

  stillhouse keys create --name agent --gate '{"kind":"email","context":{"audience":"worker"}}'
"""


@app.command(epilog=EXAMPLES)
def create(
    *,
    name: Annotated[str, typer.Option(help="Whose key it is; stands in logs and records.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What it may do: {', '.join(SCOPES)}. May repeat. All but admin unless given.",
            show_default=False,
        ),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            help="A job role that it is limited to. May repeat. No limit unless given.", show_default=False
        ),
    ] = None,
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests a minute.", show_default=False)] = None,
    tpm: Annotated[int | None, typer.Option(min=1, help="Tokens a minute.", show_default=False)] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="T", help="A duration (12h, 30d, 4w) or an ISO date or time (UTC).", show_default=False
        ),
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="What every chat answer must pass, like `validate` in a chat's body.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a key. It is shown this once: only its hash is kept."""
    try:
        expires_at = parse_expiry(expires, now=datetime.now(UTC)) if expires is not None else None
        grant = KeyGrant.model_validate(
            {
                "name": name,
                "scopes": tuple(dict.fromkeys(scope or DEFAULT_SCOPES)),
                "roles": tuple(dict.fromkeys(role)) if role else None,
                "rpm": rpm,
                "tpm": tpm,
                "expires_at": expires_at,
                "gate": GateSpec.model_validate_json(gate) if gate is not None else None,
            }
        )
    except InvalidRequest as error:
        raise typer.BadParameter(error.message, param_hint="--expires") from None
    except ValidationError as error:
        raise _refusal(error) from None
    key, record = KeyStore(load_settings().data).create(grant)
    if json:
        print_json({"key": key, **_shown(record, datetime.now(UTC))})
        return
    console(stderr=True).print(f"The key of {record.name!r} ({record.id}). It is not shown again:")
    typer.echo(key)


@app.command("list", epilog="Example: stillhouse keys list --json")
def list_keys(*, json: JsonOption = False) -> None:
    """List the keys: what each allows, never the key itself."""
    now = datetime.now(UTC)
    records = KeyStore(load_settings().data).load().records
    if json:
        print_json([_shown(record, now) for record in records])
        return
    if not records:
        console().print("There are no keys: the gateway serves loopback only.")
        return
    out = console()
    out.print(fitted(COLUMNS, FIRST_NEEDED, [_row(record, now) for record in records], out.width))


def _row(record: KeyRecord, now: datetime) -> dict[str, Text]:
    cells = (
        record.id,
        record.name,
        record.state_at(now),
        " ".join(record.scopes),
        ", ".join(record.roles) if record.roles is not None else "any",
        str(record.rpm or "–"),
        str(record.tpm or "–"),
        _moment(record.created_at),
        _moment(record.expires_at) if record.expires_at is not None else "never",
    )
    return {column.name: Text(cell) for column, cell in zip(COLUMNS, cells, strict=True)}


@app.command(epilog="Example: stillhouse keys revoke laptop")
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID|NAME", help="Which key.")], *, json: JsonOption = False
) -> None:
    """Revoke a key. Its record stays; its name is free again."""
    record = KeyStore(load_settings().data).revoke(key)
    if json:
        print_json(_shown(record, datetime.now(UTC)))
        return
    console().print(f"Revoked the key of {record.name!r} ({record.id}).")


def _refusal(error: ValidationError) -> typer.BadParameter:
    first = error.errors()[0]
    if error.title == GateSpec.__name__:
        return typer.BadParameter(first["msg"], param_hint="--gate")
    field = str(first["loc"][0]) if first["loc"] else "gate"
    option = f"--{field.removesuffix('s')}" if field in {"scopes", "roles"} else f"--{field}"
    allowed = {
        "scopes": f"{first['input']!r} is no scope; there are {', '.join(SCOPES)}",
        "roles": f"{first['input']!r}: a role is 1 to 128 printable ASCII characters without commas",
        "name": f"{first['input']!r}: a name is 1 to 64 printable ASCII characters",
    }
    return typer.BadParameter(allowed.get(field, first["msg"]), param_hint=option)


def _shown(record: KeyRecord, now: datetime) -> dict[str, Any]:
    return {**record.model_dump(mode="json", exclude={"sha256"}), "state": record.state_at(now)}


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
