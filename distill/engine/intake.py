"""From a request's bytes to records for the log, with a code and a reason for each line that is refused."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import orjson
from pydantic import ValidationError

from distill.engine.index import Entry, Owner, digest_of, owner_of
from distill.engine.ordinary import certainly
from schemas.base import SAFE_INTEGER_MAX
from schemas.canonical import canonical_bytes
from schemas.records import VERSION, Record
from schemas.runs import Run, VerdictRecord
from services.errors import InvalidRequest, PlatformError
from services.faults import param_of, reason_of

KINDS: Final[Mapping[str, type[Run] | type[VerdictRecord]]] = {
    Run.schema_id: Run,
    VerdictRecord.schema_id: VerdictRecord,
}
MESSAGE_CHARS_MAX: Final = 200
LONG_NUMBER: Final = b"0" * 16
DIGITS: Final = bytes(ord("0") if chr(code) in "0123456789" else ord(" ") for code in range(256))
"""Turns every digit into a 0: ten times faster to look through than with a pattern."""
WHOLE_FLOAT: Final = re.compile(rb"\.0[,}\]]")
ODD: Final = b"!"
ODD_KEYS: Final = bytes(ord(ODD) if code >= 0xEE else ord(" ") for code in range(256))
"""Marks the first bytes of characters from which on the order of keys is not that of their bytes."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that was not taken. `line` counts from 1."""

    line: int
    error: PlatformError


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a request. `number` counts from 1, blank lines included."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Parsed:
    """Records, each with the number of its line, and what was refused."""

    entries: list[Entry]
    numbers: list[int]
    refused: list[Refused]


def lines_of(body: bytes, *, lines_max: int) -> list[Line]:
    """The lines of NDJSON that are not blank. Raises `InvalidRequest` when there are too many."""
    count = body.count(b"\n") + (not body.endswith(b"\n"))
    if count > lines_max:
        raise InvalidRequest(
            f"the body has {count} lines; at most {lines_max} are accepted, send them in several requests",
            code="too_many_lines",
        )
    return [Line(number, data) for number, data in enumerate(body.split(b"\n"), start=1) if data.strip()]


def parse_lines(lines: Sequence[Line], principal: str | None, *, depth_max: int) -> Parsed:
    """Read the record of each line."""
    parsed = Parsed([], [], [])
    for line in lines:
        try:
            entry = parse_record(line.data, principal, depth_max=depth_max)
        except InvalidRequest as error:
            parsed.refused.append(Refused(line.number, error))
        else:
            parsed.entries.append(entry)
            parsed.numbers.append(line.number)
    return parsed


def parse_record(data: bytes, principal: str | None, *, depth_max: int) -> Entry:
    """Read one record and bring it into its final form. Raises `InvalidRequest`."""
    if may_be_deeper(data, depth_max):
        return by_model(data, principal, depth_max=depth_max)
    return at_once(data, principal) or by_model(data, principal, depth_max=depth_max)


def at_once(data: bytes, principal: str | None) -> Entry | None:
    """The entry of an ordinary record, the same that `by_model` makes of it; None for any other data."""
    try:
        record = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if type(record) is not dict or type(name := record.setdefault("schema", Run.schema_id)) is not str:
        return None
    kind = KINDS.get(name)
    if kind is None or not certainly(kind)(record):
        return None
    if kind is Run and record.get("principal") is None:
        record["principal"] = principal
    record.setdefault("schema_version", VERSION)
    line = _canonical_line(record)
    owner = Owner("run", record["run_id"])
    return Entry(name, owner, owner.key, line, digest_of(line))


def _canonical_line(record: dict[str, Any]) -> bytes:
    """The line of a record whose numbers are all written without exponents."""
    line = orjson.dumps(record, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
    if WHOLE_FLOAT.search(line) or not (line.isascii() or ODD not in line.translate(ODD_KEYS)):
        return canonical_bytes(record) + b"\n"
    return line


def by_model(data: bytes, principal: str | None, *, depth_max: int) -> Entry:
    """What `parse_record` does, for any record. Raises `InvalidRequest`."""
    raw = loads(data)
    if not isinstance(raw, dict):
        raise InvalidRequest("this is not a JSON object", code="invalid_json")
    if may_be_deeper(data, depth_max):
        check_depth(raw, depth_max)
    return to_entry(raw, principal)


def to_entry(raw: dict[str, Any], principal: str | None) -> Entry:
    """Check a record against its schema; keep it as it was sent, with schema and principal filled in."""
    kind = _kind_of(raw)
    try:
        kind.model_validate(raw)
    except ValidationError as error:
        _refuse(error)
    if kind is Run and raw.get("principal") is None:
        raw["principal"] = principal
    return entry_of({**raw, "schema": kind.schema_id, "schema_version": raw.get("schema_version", VERSION)})


def entry_of(record: dict[str, Any]) -> Entry:
    """The canonical line of a record. Raises `InvalidRequest` for what has no canonical form."""
    try:
        line = canonical_bytes(record) + b"\n"
    except ValueError as error:
        raise InvalidRequest(
            f"a number cannot be kept exactly by every reader: {error}", code="number_out_of_range"
        ) from None
    owner = owner_of(record)
    assert isinstance(owner, Owner)  # the schemas see to it
    return Entry(record["schema"], owner, owner.key, line, digest_of(line))


def loads(data: bytes) -> Any:
    """Read JSON; NaN, infinities and integers that are not kept exactly raise `InvalidRequest`."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"this is not valid JSON: {error.msg}", code="invalid_json") from None
    if LONG_NUMBER in data.translate(DIGITS):
        # orjson turns integers beyond 64 bits into floats, which would hide them from the check.
        json.loads(data, parse_int=_safe_integer)
    return value


def _safe_integer(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > SAFE_INTEGER_MAX:
        raise InvalidRequest(
            f"integers beyond 2^53 cannot be kept exactly; this one has {len(digits)} digits;"
            " send it as a string",
            code="number_out_of_range",
        )
    return int(digits)


def may_be_deeper(data: bytes, depth_max: int) -> bool:
    """Whether JSON has brackets enough to be nested deeper; a walk through the value can tell."""
    return data.count(b"{") + data.count(b"[") > depth_max


def check_depth(value: dict[str, Any], depth_max: int) -> None:
    """Raise `InvalidRequest` for what later readers, which recurse, might not survive."""
    level: list[Any] = [value]
    for _ in range(depth_max):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise InvalidRequest(f"the record is nested deeper than {depth_max} levels", code="too_deep")


def _kind_of(raw: Mapping[str, Any]) -> type[Record]:
    name = raw.get("schema", Run.schema_id)
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise InvalidRequest(
            f"`schema` is not one that is taken here; send {' or '.join(KINDS)}",
            code="unknown_schema",
            param="schema",
        )
    return kind


def _refuse(error: ValidationError) -> NoReturn:
    """Name the first bad field and how many more there are. The record's values are not echoed."""
    errors = error.errors(include_url=False, include_input=False)
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    param = param_of(first["loc"])[:MESSAGE_CHARS_MAX]
    if first["type"] == "extra_forbidden":
        message = f"`{param}` is not a field of this record; put what is your own under `ext`{more}"
        raise InvalidRequest(message, code="unknown_field", param=param) from None
    code = "number_out_of_range" if "2^53" in first["msg"] else "schema_invalid"
    problem = reason_of(first)[:MESSAGE_CHARS_MAX]
    text = f"`{param}`: {problem}{more}" if param else f"{problem}{more}"
    raise InvalidRequest(text, code=code, param=param or None) from None
