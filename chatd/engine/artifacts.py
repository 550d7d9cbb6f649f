"""Finds the JSON in what a model said, and shows what a finding's fix would make of it."""

import copy
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson
from pydantic import JsonValue, TypeAdapter, ValidationError

from schemas.base import JsonObject, SafeJson
from schemas.verdicts import Finding

_SAFE: Final[TypeAdapter[JsonValue]] = TypeAdapter(SafeJson)
VALUES_MAX: Final = 64
"""So many values of one answer are looked at; more of them are noise."""

_CLOSER: Final = {"{": "}", "[": "]"}
_BRACKET: Final = re.compile(r"[{\[]")
_MARK: Final = re.compile(r'[{}\[\]"]')
_STRING_END: Final = re.compile(r'["\\]')
_COMMA_OR_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|,(?=\s*+[}\]])', re.DOTALL)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)


def parse(text: str, *, array: bool = False) -> JsonValue:
    """The JSON object (or `array`) in a text, past code fences, chatter and commas too many.

    Of several values the first of the wanted type counts, else the first. A text without any is returned
    as it is: a validator takes that too, and says what is wrong with it. Nothing inside a broken value is
    taken for the whole. Of a key that is there twice the last one counts, as for validators.
    """
    wanted = list if array else dict
    first: JsonValue = None
    for value in _values(text):
        if isinstance(value, wanted):
            return value
        first = value if first is None else first
    return text if first is None else first


def _values(text: str) -> Iterator[JsonValue]:
    """The objects and arrays of a text, one after the other, reading on behind each: in linear time."""
    position = 0
    for _ in range(VALUES_MAX):
        if (bracket := _BRACKET.search(text, position)) is None:
            return
        end = _end_of(text, bracket.start())
        if end is None:
            return
        piece = text[bracket.start() : end]
        position = end
        try:
            yield _read(piece)
        except (ValueError, RecursionError):
            continue


def _end_of(text: str, start: int) -> int | None:
    """Where the value that opens at `start` is closed; None for one that was cut."""
    closers: list[str] = []
    position = start
    while (mark := _MARK.search(text, position)) is not None:
        position = mark.end()
        character = mark[0]
        if character == '"':
            after = _end_of_string(text, position)
            if after is None:
                return None
            position = after
        elif character in _CLOSER:
            closers.append(_CLOSER[character])
        elif closers.pop() != character or not closers:
            return position
    return None


def _end_of_string(text: str, position: int) -> int | None:
    while (mark := _STRING_END.search(text, position)) is not None:
        if mark[0] == '"':
            return mark.end()
        position = mark.end() + 1
    return None


def _read(piece: str) -> JsonValue:
    """Raises `ValueError` for what is no JSON that every reader can hold."""
    try:
        value = _DECODER.decode(piece)
    except ValueError:
        value = _DECODER.decode(_COMMA_OR_STRING.sub(_without_comma, piece))
    try:
        orjson.dumps(_SAFE.validate_python(value))  # refuses halves of surrogate pairs, too
    except (ValidationError, orjson.JSONEncodeError) as error:
        raise ValueError("not JSON that can be kept") from error
    return value  # type: ignore[no-any-return] # the decoder makes nothing but JSON


def _without_comma(match: re.Match[str]) -> str:
    return "" if match[0] == "," else match[0]


def with_fixes(artifact: JsonValue, findings: Sequence[Finding]) -> JsonValue:
    """A copy of the artifact with every usable fix applied.

    Nothing may take it for the model's answer: it is shown to the model, which then answers itself.
    """
    fixed = copy.deepcopy(artifact)
    # Several findings on one thing carry the same fix, which is meant once.
    fixes: list[tuple[JsonObject, str]] = []
    for finding in findings:
        if finding.fix is not None:
            placed = (finding.fix, fix_path(finding.fix, finding.path))
            if placed not in fixes:
                fixes.append(placed)
    # Removals come last and from the end, so that no index shifts under a later fix.
    changes = [fix for fix in fixes if fix[0].get("op") != "remove"]
    removals = [fix for fix in fixes if fix[0].get("op") == "remove"]
    for fix, path in [*changes, *reversed(removals)]:
        fixed = _applied(fixed, fix, path)
    return fixed


def fix_path(fix: JsonObject, path: str) -> str:
    """Where a fix applies: at its own pointer, or at the finding's."""
    own = fix.get("path")
    return own if isinstance(own, str) else path


def _applied(document: Any, fix: JsonObject, pointer: str) -> Any:
    """The document with one fix applied in place, if it fits."""
    if not pointer:
        return fix.get("value", document)
    *parents, last = _tokens(pointer)
    holder = document
    for token in parents:
        holder = _step(holder, token)
    if isinstance(holder, dict):
        _apply_to_object(holder, last, fix)
    elif isinstance(holder, list):
        _apply_to_array(holder, last, fix)
    return document


def _tokens(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _step(holder: Any, token: str) -> Any:
    if isinstance(holder, dict):
        return holder.get(token)
    if isinstance(holder, list) and token.isdecimal() and int(token) < len(holder):
        return holder[int(token)]
    return None


def _apply_to_object(holder: dict[str, Any], key: str, fix: JsonObject) -> None:
    if fix.get("op") == "remove":
        holder.pop(key, None)
    elif "value" in fix:
        holder[key] = fix["value"]


def _apply_to_array(holder: list[Any], place: str, fix: JsonObject) -> None:
    op = fix.get("op")
    index = len(holder) if place == "-" else int(place) if place.isdecimal() else -1
    if op == "add" and "value" in fix and 0 <= index <= len(holder):
        holder.insert(index, fix["value"])
    elif op == "remove" and 0 <= index < len(holder):
        del holder[index]
    elif op == "replace" and "value" in fix and 0 <= index < len(holder):
        holder[index] = fix["value"]
