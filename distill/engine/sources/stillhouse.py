"""`stillhouse`: our own log. Runs are calls of a model; verdicts, feedback and reviews are said of them."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from distill.engine.ordinary import certainly
from distill.engine.sources.turn import Json, Turn, Unreadable
from schemas.records import Record
from schemas.review import Review
from schemas.runs import Feedback, Run, VerdictRecord

READERS: Final[Mapping[str, type[Record]]] = {
    kind.schema_id: kind for kind in (Run, VerdictRecord, Feedback, Review)
}


def read(row: Json) -> Turn | Json:
    """A run as a turn; a verdict, feedback or review as the record that it is. Raises `Unreadable`."""
    record = checked(row)
    return turn_of(record) if record["schema"] == Run.schema_id else record


def read_again(row: Json) -> Turn:
    """A run that `read` has let pass, without checking it once more."""
    return turn_of(row if row.get("schema_version") == Run.version else checked(row))


def checked(row: Json) -> Json:
    """The record in the form of today's version. Raises `Unreadable`."""
    name = row.get("schema")
    kind = READERS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise Unreadable("unknown_schema", "records of this schema are not read here")
    current = row.get("schema_version") == kind.version
    if current and certainly(kind)(row):
        return row
    try:
        record = kind.model_validate(row)
    except ValidationError as error:
        raise Unreadable("schema_invalid", _first_problem(error)) from None
    return row if current else record.model_dump(mode="json")


def turn_of(run: Mapping[str, Any]) -> Turn:
    """A run that was checked, as a turn. What it leaves out has the value that its schema gives."""
    request = run["request"]
    repairs = (run.get("ext") or {}).get("repair_of_run_id")
    return Turn(
        key=run["run_id"],
        messages=request["messages"],
        tools=request.get("tools"),
        params=request.get("params", {}),
        context=[_context(text) for text in run.get("retrieved_context", ())],
        model=_filled(run["model"], ("provider", "name", "digest")),
        output=_filled(output, OUTPUT) if (output := run.get("output")) else None,
        task=_filled(task, ("kind", "key")) if (task := run.get("task")) else None,
        ts=run["ts"],
        episode_id=run.get("episode_id"),
        usage=_filled(run.get("usage", {}), ("prompt_tokens", "completion_tokens", "cost_usd")),
        latency_ms=run.get("latency_ms"),
        config_hash=run.get("config_hash"),
        verdict=run.get("verdict"),
        repairs=repairs if isinstance(repairs, str) else None,
    )


OUTPUT: Final = ("content", "tool_calls", "finish_reason")
CONTEXT: Final = ("collection", "id", "role", "score", "text", "text_sha256")


def _filled(record: Mapping[str, Any], names: tuple[str, ...]) -> Json:
    return {name: record.get(name) for name in names}


def _context(text: Mapping[str, Any]) -> Json:
    return _filled(text, CONTEXT)


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"`{where}`: {first['msg']}" if where else first["msg"]
