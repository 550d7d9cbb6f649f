"""`stillhouse validate`: has artifacts judged, one or a file of many, and shows what was found."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from pydantic import JsonValue, RootModel, ValidationError
from rich.table import Table
from rich.text import Text

from schemas.errors import ErrorBody, ErrorEnvelope
from schemas.verdicts import Finding, ValidateRequest, Verdict
from services.faults import reason_of
from stillhouse.client import GatewayClient
from stillhouse.commands.progress import progress
from stillhouse.output import JsonOption, console, print_json
from stillhouse.settings import load_settings

EXAMPLES = """\
Examples:

  stillhouse validate fill.json --context order.json

  stillhouse validate text.json --kind sms --context '{"first_contact": true}'

  stillhouse validate draft.json --kind email --json

  some-model | stillhouse validate - --kind sms

  stillhouse validate requests.ndjson

  some-export | stillhouse validate - --batch --json
"""

STYLES: Final = {"error": "red", "review": "magenta", "warning": "yellow", "info": "dim"}
BATCH_SUFFIXES: Final = frozenset({".ndjson", ".jsonl"})
CHUNK_LINES: Final = 500
CHUNK_BYTES_MAX: Final = 4 * 1024 * 1024


class Line(RootModel[Verdict | ErrorEnvelope]):
    """The answer to one line of a batch."""


def validate(
    file: Annotated[str, typer.Argument(help="The artifact; - reads standard input.")],
    kind: Annotated[
        str, typer.Option(help="What the artifact is; the gateway names the kinds it knows.")
    ] = "fill",
    context: Annotated[
        str | None,
        typer.Option(
            help="What is known around the artifact: a file that holds a JSON object, or the object itself.",
            show_default=False,
        ),
    ] = None,
    run_id: Annotated[
        str | None,
        typer.Option(help="The run that made it; the verdict is filed with it.", show_default=False),
    ] = None,
    *,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch",
            help="The file has one request a line, as /v1/validate takes it; so do .ndjson and .jsonl.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Have an artifact judged. Exits with 1 unless it is accepted.

    The file is passed on as it is, so that what is no JSON is found by the validator. Of a batch, every line
    has to be accepted; a line may leave out the kind and the context where the options give them.
    """
    given = _context(context)
    content = _read(file, "FILE")
    if batch or Path(file).suffix in BATCH_SUFFIXES:
        if run_id is not None:
            raise typer.BadParameter("a batch names its runs line by line", param_hint="--run-id")
        accepted = _validate_lines(content, kind, given, json=json)
    else:
        accepted = _validate_one(_request(kind, content, given, run_id), json=json)
    if not accepted:
        raise typer.Exit(1)


def _validate_one(request: ValidateRequest, *, json: bool) -> bool:
    """Show the verdict; whether it accepts."""
    with GatewayClient(load_settings()) as gateway:
        verdict = gateway.post("/v1/validate", Verdict, request)
    if json:
        print_json(verdict.model_dump(mode="json", exclude_none=True))
    else:
        _show(verdict)
    return verdict.ok


def _validate_lines(content: str, kind: str, context: JsonValue, *, json: bool) -> bool:
    """Show the answers, each with the number of its line; whether all accept."""
    asked = [
        (number, _line(line, kind, context))
        for number, line in enumerate(content.split("\n"), start=1)
        if line.strip()
    ]
    judged = iter(_answers([request for _, request in asked if isinstance(request, dict)]))
    answers = [(number, next(judged) if isinstance(request, dict) else request) for number, request in asked]
    if json:
        print_json([answer.model_dump(mode="json", exclude_none=True) for _, answer in answers])
    else:
        _show_lines(answers)
    return all(isinstance(answer, Verdict) and answer.ok for _, answer in answers)


def _read(name: str, hint: str) -> str:
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return content.decode()
    except OSError as error:
        raise typer.BadParameter(f"{name} cannot be read: {error.strerror}", param_hint=hint) from None
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{name} cannot be read as UTF-8: {error}", param_hint=hint) from None


def _context(given: str | None) -> JsonValue:
    """The context, from a file or from the command line itself."""
    if given is None:
        return {}
    text = given if given.lstrip().startswith("{") else _read(given, "--context")
    try:
        context: JsonValue = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"the context is not JSON: {error}", param_hint="--context") from None
    if not isinstance(context, dict):
        raise typer.BadParameter("the context is not a JSON object", param_hint="--context")
    return context


def _request(kind: str, artifact: str, context: JsonValue, run_id: str | None) -> ValidateRequest:
    try:
        return ValidateRequest.model_validate(
            {"kind": kind, "artifact": artifact, "context": context, "run_id": run_id}
        )
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise typer.BadParameter(reason_of(first), param_hint=f"--{option}") from None


# --- a batch ----------------------------------------------------------------------------------


def _line(line: str, kind: str, context: JsonValue) -> dict[str, Any] | ErrorEnvelope:
    try:
        request = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _refused(f"the line is not valid JSON: {error.msg}", "invalid_json")
    if not isinstance(request, dict) or "artifact" not in request:
        return _refused("the line is not an object with an `artifact`", "invalid_request")
    return {"kind": kind, "context": context} | request


def _refused(message: str, code: str) -> ErrorEnvelope:
    return ErrorEnvelope(
        error=ErrorBody(message=message, type="invalid_request_error", code=code, param=None, request_id=None)
    )


def _answers(requests: Sequence[dict[str, Any]]) -> list[Verdict | ErrorEnvelope]:
    answers: list[Verdict | ErrorEnvelope] = []
    with GatewayClient(load_settings()) as gateway, progress(console(stderr=True), "judging") as report:
        for chunk in _chunks(requests):
            answers += [answer.root for answer in gateway.post_lines("/v1/validate/batch", Line, chunk)]
            report(f"judging {_count(len(requests), 'line')}", len(answers) / len(requests))
    return answers


def _chunks(requests: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The requests in parts that the daemon takes at once."""
    chunk: list[dict[str, Any]] = []
    size = 0
    for request in requests:
        more = len(orjson.dumps(request))
        if chunk and (len(chunk) == CHUNK_LINES or size + more > CHUNK_BYTES_MAX):
            yield chunk
            chunk, size = [], 0
        chunk.append(request)
        size += more
    if chunk:
        yield chunk


# --- what people see --------------------------------------------------------------------------


def _show(verdict: Verdict) -> None:
    out = console()
    if verdict.findings:
        table = Table("severity", "code", "path", "message", "fix")
        for finding in verdict.findings:
            table.add_row(*_row(finding))
        out.print(table)
    out.print(
        f"{verdict.kind}: {verdict.verdict}, {_count(len(verdict.findings), 'finding')}{_basis(verdict)}"
    )


def _row(finding: Finding) -> tuple[Text | str, ...]:
    severity = Text(finding.severity, style=STYLES[finding.severity])
    return (
        severity,
        finding.code,
        finding.path or "/",
        finding.message,
        str(finding.fix["op"]) if finding.fix else "",
    )


def _basis(verdict: Verdict) -> str:
    roster = f", roster of {verdict.roster.as_of}" if verdict.roster else ""
    return f" (policy {verdict.validator.policy_version}{roster})"


def _show_lines(answers: Sequence[tuple[int, Verdict | ErrorEnvelope]]) -> None:
    """A row for each answer; then how many there are of each outcome."""
    out = console()
    table = Table("line", "kind", "verdict", "findings")
    outcomes: Counter[str] = Counter()
    for number, answer in answers:
        if isinstance(answer, Verdict):
            outcomes[answer.verdict] += 1
            found = Counter(finding.code for finding in answer.findings)
            listed = ", ".join(code if count == 1 else f"{code} x{count}" for code, count in found.items())
            table.add_row(str(number), answer.kind, answer.verdict, listed)
        else:
            outcomes["refused"] += 1
            table.add_row(str(number), "", Text("refused", style="red"), answer.error.message)
    if answers:
        out.print(table)
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    out.print(f"{_count(len(answers), 'line')}{': ' if told else ''}{told}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
