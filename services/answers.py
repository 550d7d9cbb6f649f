"""Finds the JSON in what a model said: leniently, and the same for whoever judges an answer."""

import json
import re
from collections.abc import Iterator
from typing import Final

import orjson
from pydantic import JsonValue, TypeAdapter, ValidationError

from schemas.base import SafeJson

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
