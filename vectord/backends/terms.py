"""A payload as a set of 64-bit terms, and a filter as tests on them: for stores whose filters know columns.

A term is the hash of a path, a type and a value. So a filter is written in numbers alone: nothing that a
caller says gets into the language of the store. A range is a few hundred terms: a number has one for each
prefix of its bits, four at a time, and any range is the union of such prefixes.

Two terms meet by chance once in 10^19 pairs.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from schemas.vectors import Condition, Filter, Range
from vectord.backends import projection
from vectord.backends.paths import parse_datetime, parse_path

EXISTS: Final = b"e"
STRING: Final = b"s"
NUMBER: Final = b"n"
BOOLEAN: Final = b"b"
DATETIME: Final = b"d"
BITS: Final = 64
STEP: Final = 4
KEY_MAX: Final = 2**BITS - 1
SIGN: Final = 2**63

Json = Any
Steps = tuple[tuple[str, bool], ...]


# --- payloads ---------------------------------------------------------------------------------


def terms_of(payload: dict[str, Json]) -> list[int]:
    """Every term of a payload, each once."""
    return list(dict.fromkeys(_of_object((), payload)))


def _of_object(path: Steps, value: dict[str, Json]) -> Iterator[int]:
    for name, inner in value.items():
        if inner is None or inner == []:
            continue
        here = (*path, (name, False))
        head = _head(here)
        yield _hash(head, EXISTS, b"")
        for item in inner if isinstance(inner, list) else [inner]:
            yield from _of_scalar(head, item)
        if isinstance(inner, dict):
            yield from _of_object(here, inner)
        elif isinstance(inner, list):
            each = (*path, (name, True))
            for item in inner:
                if isinstance(item, dict):
                    yield from _of_object(each, item)


def _of_scalar(head: bytes, item: Json) -> Iterator[int]:
    if isinstance(item, bool):
        yield _hash(head, BOOLEAN, b"1" if item else b"0")
    elif isinstance(item, int | float):
        yield from _of_number(head, NUMBER, item)
    elif isinstance(item, str):
        yield _hash(head, STRING, item.encode())
        moment = parse_datetime(item)
        if moment is not None:
            yield from _of_number(head, DATETIME, moment)


def _of_number(head: bytes, tag: bytes, value: float) -> Iterator[int]:
    key = _sortable(value)
    for shift in range(0, BITS, STEP):
        yield _prefix(head, tag, shift, key >> shift)


def _head(path: Steps) -> bytes:
    """Stands for a path; paths of the same parts are the same, and no others."""
    return hashlib.blake2b(orjson.dumps(path), digest_size=16).digest()


def _hash(head: bytes, tag: bytes, value: bytes) -> int:
    digest = hashlib.blake2b(head + tag + value, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _prefix(head: bytes, tag: bytes, shift: int, prefix: int) -> int:
    return _hash(head, tag, struct.pack("<BQ", shift, prefix))


def _sortable(value: float) -> int:
    """A number as 64 bits whose order is the order of numbers."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", float(projection.number(value)) + 0.0))
    return int(KEY_MAX - bits if bits & SIGN else bits | SIGN)


# --- filters ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The point has one of these terms."""

    terms: frozenset[int]


@dataclass(frozen=True, slots=True)
class All:
    """All of the parts hold; without parts, always."""

    parts: tuple["Test", ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: "Test"


Test = AnyOf | All | Not


def test_of(node: Filter | Condition) -> Test:
    """A filter as tests on terms. Raises ValueError for a path or date-time that cannot be read."""
    if isinstance(node, Condition):
        return _condition(node)
    parts = [test_of(inner) for inner in node.must]
    if node.should:
        parts.append(_either([test_of(inner) for inner in node.should]))
    if node.must_not:
        parts.append(Not(_either([test_of(inner) for inner in node.must_not])))
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _either(tests: Sequence[Test]) -> Test:
    """One of them holds. Tests for terms become one test: a union is far cheaper than a choice."""
    joined = AnyOf(frozenset[int]().union(*(test.terms for test in tests if isinstance(test, AnyOf))))
    others = [test for test in tests if not isinstance(test, AnyOf)]
    if not others:
        return joined
    parts = [*others, joined] if joined.terms else others
    return Not(All(tuple(Not(part) for part in parts)))


def _condition(node: Condition) -> Test:
    path: Steps = tuple((step.name, step.each) for step in parse_path(node.key))
    head = _head(path)
    if node.exists is not None:
        there = AnyOf(frozenset({_hash(head, EXISTS, b"")}))
        return there if node.exists else Not(there)
    if node.range is not None:
        return AnyOf(frozenset(_in_range(head, node.range)))
    values = node.any if node.any is not None else [node.match]
    return AnyOf(frozenset(_equal_to(head, value) for value in values))


def _equal_to(head: bytes, value: object) -> int:
    if isinstance(value, bool):
        return _hash(head, BOOLEAN, b"1" if value else b"0")
    if isinstance(value, int | float):
        return _prefix(head, NUMBER, 0, _sortable(value))
    return _hash(head, STRING, str(value).encode())


def _in_range(head: bytes, bounds: Range) -> Iterator[int]:
    of_dates = any(isinstance(bound, str) for bound in (bounds.gt, bounds.gte, bounds.lt, bounds.lte))
    low = max(_key(bounds.gt, 1, -1), _key(bounds.gte, 0, -1))
    high = min(_key(bounds.lt, -1, KEY_MAX + 1), _key(bounds.lte, 0, KEY_MAX + 1))
    tag = DATETIME if of_dates else NUMBER
    for shift, prefix in prefixes(max(low, 0), min(high, KEY_MAX)):
        yield _prefix(head, tag, shift, prefix)


def _key(bound: float | str | None, beside: int, absent: int) -> int:
    if bound is None:
        return absent
    value = parse_datetime(bound) if isinstance(bound, str) else bound
    if value is None:
        raise ValueError(f"{bound!r} is not a date-time")
    return _sortable(value) + beside


def prefixes(low: int, high: int) -> Iterator[tuple[int, int]]:
    """The fewest (shift, prefix) whose ranges together are [low, high]; at most 30 a level."""
    shift = 0
    while low <= high:
        if shift == BITS - STEP:
            yield from ((shift, prefix) for prefix in range(low, high + 1))
            return
        width = 2**STEP
        while low <= high and low % width:
            yield shift, low
            low += 1
        while low <= high and (high + 1) % width:
            yield shift, high
            high -= 1
        if low > high:
            return
        low, high, shift = low // width, high // width, shift + STEP


def render(test: Test, any_of: Callable[[Sequence[int]], str]) -> str:
    """The test in the language of SQL; `any_of` says how a test for terms is written there."""
    if isinstance(test, AnyOf):
        return any_of(sorted(test.terms)) if test.terms else "false"
    if isinstance(test, Not):
        return f"NOT ({render(test.part, any_of)})"
    return _conjunction([render(part, any_of) for part in test.parts])


def _conjunction(parts: Sequence[str]) -> str:
    """A balanced tree: parsers recurse into long chains."""
    if not parts:
        return "true"
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({_conjunction(parts[:middle])}) AND ({_conjunction(parts[middle:])})"
