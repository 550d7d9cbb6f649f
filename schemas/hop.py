"""What gateway and embedd say to one another about embeddings: many calls in one request, answers as parts.

The request is JSON. The answer is a stream of parts, in the order in which calls are done, so that a call
whose vectors are cached never waits for one whose are not:

    u32 little-endian: length of the head | head, JSON | payload: the fragments, one after the other

A fragment is the finished JSON text of one `embedding` value: a list of numbers, or base64 in quotes. The
gateway splices fragments into the OpenAI answer and encodes nothing.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson

from schemas.embeddings import EncodingFormat, InputType
from schemas.errors import ErrorBody

CONTENT_TYPE: Final = b"application/x-stillhouse-hop"
PATH: Final = "/hop/embeddings"

_LENGTH: Final = struct.Struct("<I")
HEAD_BYTES_MAX: Final = 16 * 1024 * 1024


class Call(NamedTuple):
    """One caller's texts for one replica. `id` is unique among a gateway's calls that are under way.

    `encoding` is `float` or `base64`. `request_id` and `traceparent` are the caller's.
    """

    id: int
    request_id: str
    traceparent: str
    model: str
    input_type: InputType | None
    truncate: bool
    dimensions: int | None
    encoding: EncodingFormat
    texts: list[str]


class Answered(NamedTuple):
    """The answer to a call: a fragment and a number of tokens for each text. Times are milliseconds."""

    id: int
    digest: str
    hits: int
    misses: int
    tokens: list[int]
    queue_ms: float
    inference_ms: float
    fragments: Sequence[bytes]


class Refused(NamedTuple):
    """The failure of a call, with what the caller is told."""

    id: int
    status: int
    error: ErrorBody
    retry_after_s: float | None


def encode_request(source: str, calls: Sequence[Call], cancelled: Sequence[int]) -> bytes:
    """A frame of calls from one gateway, named `source`, and the ids of calls that nobody waits for now."""
    return orjson.dumps([source, [tuple(call) for call in calls], cancelled])


def decode_request(data: bytes) -> tuple[str, list[Call], list[int]]:
    """Raises `ValueError` for anything but what `encode_request` makes."""
    try:
        source, calls, cancelled = orjson.loads(data)
        return source, [Call(*call) for call in calls], cancelled
    except TypeError as error:
        raise ValueError(f"not a frame of calls: {error}") from None


def encode_answered(part: Answered) -> bytes:
    head = orjson.dumps([*part[:-1], [len(fragment) for fragment in part.fragments]])
    return b"".join([_LENGTH.pack(len(head)), head, *part.fragments])


def encode_refused(part: Refused) -> bytes:
    error = part.error
    body = [error.message, error.type, error.code, error.param, error.request_id]
    head = orjson.dumps([part.id, part.status, body, part.retry_after_s])
    return _LENGTH.pack(len(head)) + head


class PartReader:
    """Cuts parts out of a stream of bytes. `feed` gives those that are complete."""

    def __init__(self) -> None:
        self._data = b""
        self._head: list[Any] | None = None
        self._payload_bytes = 0

    @property
    def clean(self) -> bool:
        """Whether the stream may end here."""
        return not self._data and self._head is None

    def feed(self, data: bytes) -> list[Answered | Refused]:
        """Raises `ValueError` for bytes that are no parts."""
        data = self._data + data if self._data else data
        at = 0
        parts: list[Answered | Refused] = []
        while True:
            if self._head is None:
                if len(data) - at < _LENGTH.size:
                    break
                (length,) = _LENGTH.unpack_from(data, at)
                if length > HEAD_BYTES_MAX:
                    raise ValueError(f"a head of {length} bytes; at most {HEAD_BYTES_MAX} are accepted")
                if len(data) - at - _LENGTH.size < length:
                    break
                at += _LENGTH.size
                self._head = orjson.loads(data[at : at + length])
                at += length
                self._payload_bytes = sum(self._head[-1]) if len(self._head) == 8 else 0
            if len(data) - at < self._payload_bytes:
                break
            parts.append(_part(self._head, data, at))
            at += self._payload_bytes
            self._head = None
        self._data = data[at:]
        return parts


def _part(head: list[Any], data: bytes, at: int) -> Answered | Refused:
    if len(head) == 8:
        fragments: list[bytes] = []
        for length in head[-1]:
            fragments.append(data[at : at + length])
            at += length
        id_, digest, hits, misses, tokens, queue_ms, inference_ms, _ = head
        return Answered(id_, digest, hits, misses, tokens, queue_ms, inference_ms, fragments)
    id_, status, (message, kind, code, param, request_id), retry_after_s = head
    error = ErrorBody(message=message, type=kind, code=code, param=param, request_id=request_id)
    return Refused(id_, status, error, retry_after_s)
