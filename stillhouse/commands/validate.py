"""`stillhouse validate`: has one artifact judged, and shows what was found."""

from typing import Annotated

import orjson
import typer
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from schemas.verdicts import ValidateRequest, Verdict
from services.faults import reason_of
from stillhouse.client import GatewayClient
from stillhouse.output import JsonOption, console, print_json
from stillhouse.settings import load_settings

EXAMPLES = """\
Examples:

  stillhouse validate fill.json --context order.json

  stillhouse validate draft.json --kind email --json

  some-model | stillhouse validate - --kind sms
"""

STYLES = {"error": "red", "review": "magenta", "warning": "yellow", "info": "dim"}


def validate(
    file: Annotated[
        typer.FileText, typer.Argument(encoding="utf-8", help="The artifact; - reads standard input.")
    ],
    kind: Annotated[
        str, typer.Option(help="What the artifact is; the gateway names the kinds it knows.")
    ] = "fill",
    context: Annotated[
        typer.FileText | None,
        typer.Option(
            encoding="utf-8", help="A JSON object: what is known around the artifact.", show_default=False
        ),
    ] = None,
    run_id: Annotated[
        str | None,
        typer.Option(help="The run that made it; the verdict is filed with it.", show_default=False),
    ] = None,
    *,
    json: JsonOption = False,
) -> None:
    """Have an artifact judged. Exits with 1 unless it is accepted.

    The file is passed on as it is, so that what is no JSON is found by the validator.
    """
    request = _request(kind, _read(file, "FILE"), _read(context, "--context") if context else "{}", run_id)
    with GatewayClient(load_settings()) as gateway:
        verdict = gateway.post("/v1/validate", Verdict, request)
    if json:
        print_json(verdict.model_dump(mode="json", exclude_none=True))
    else:
        _show(verdict)
    if not verdict.ok:
        raise typer.Exit(1)


def _read(file: typer.FileText, hint: str) -> str:
    try:
        return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file.name} cannot be read as UTF-8: {error}", param_hint=hint) from None


def _request(kind: str, artifact: str, context: str, run_id: str | None) -> ValidateRequest:
    try:
        return ValidateRequest(kind=kind, artifact=artifact, context=orjson.loads(context), run_id=run_id)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"the file is not JSON: {error}", param_hint="--context") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise typer.BadParameter(reason_of(first), param_hint=f"--{option}") from None


def _show(verdict: Verdict) -> None:
    out = console()
    if verdict.findings:
        table = Table("severity", "code", "path", "message")
        for finding in verdict.findings:
            severity = Text(finding.severity, style=STYLES[finding.severity])
            table.add_row(severity, finding.code, finding.path or "/", finding.message)
        out.print(table)
    count = len(verdict.findings)
    out.print(f"{verdict.kind}: {verdict.verdict}, {count} finding{'' if count == 1 else 's'}")
