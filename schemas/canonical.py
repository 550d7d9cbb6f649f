"""Canonical JSON (RFC 8785) and the ids made from it: the same bytes in every runtime."""

import hashlib
from enum import IntEnum
from typing import Any, Final

import orjson
import rfc8785

from schemas.base import SAFE_INTEGER_MAX

KEY_ORDERS_DIFFER: Final = "\ue000"
"""From here on, the order of UTF-16 units, which the standard asks for, is not that of code points."""
FIXED_MIN: Final = 1e-5
"""Fractions from here on are written without an exponent by everybody."""


class _Form(IntEnum):
    """What has to be done to a value before orjson writes its canonical form."""

    PLAIN = 0
    WHOLE_FLOATS = 1
    BY_THE_BOOK = 2


def canonical_bytes(value: Any) -> bytes:
    """The RFC 8785 form of a JSON value.

    Raises `ValueError` for NaN, infinities and integers beyond 2^53, which no two runtimes write alike.
    """
    form = _form_of(value)
    if form is _Form.BY_THE_BOOK:
        return rfc8785.dumps(value)
    try:
        return orjson.dumps(
            value if form is _Form.PLAIN else _without_whole_floats(value), option=orjson.OPT_SORT_KEYS
        )
    except TypeError:  # half a surrogate pair, or nesting that is too deep
        return rfc8785.dumps(value)


def content_id(value: Any) -> str:
    """The sha256 (64 hex digits) of a JSON value's canonical form."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()


def _form_of(value: Any) -> _Form:
    """How orjson's text, keys sorted, relates to the canonical one. Walks the whole value."""
    form = _Form.PLAIN
    pending = [value]
    for item in pending:  # which grows meanwhile
        kind = type(item)
        if kind is str or item is None or kind is bool:
            continue
        if kind is dict:
            if _has_odd_keys(item):
                return _Form.BY_THE_BOOK
            pending.extend(item.values())
        elif kind is list:
            pending.extend(item)
        elif kind is int and -SAFE_INTEGER_MAX <= item <= SAFE_INTEGER_MAX:
            continue
        elif kind is float and _is_whole(item):
            form = _Form.WHOLE_FLOATS
        elif kind is not float or not FIXED_MIN <= abs(item) <= SAFE_INTEGER_MAX:
            return _Form.BY_THE_BOOK
    return form


def _has_odd_keys(value: dict[Any, Any]) -> bool:
    """Whether a key is no text, or may stand elsewhere in the standard's order than in orjson's."""
    try:
        keys = "".join(value)
    except TypeError:
        return True
    return not keys.isascii() and max(keys) >= KEY_ORDERS_DIFFER


def _is_whole(number: float) -> bool:
    return number.is_integer() and abs(number) <= SAFE_INTEGER_MAX


def _without_whole_floats(value: Any) -> Any:
    """The value with `1.0` as `1`, which is how the canonical form writes it."""
    if type(value) is dict:
        return {key: _without_whole_floats(item) for key, item in value.items()}
    if type(value) is list:
        return [_without_whole_floats(item) for item in value]
    return int(value) if type(value) is float and _is_whole(value) else value
