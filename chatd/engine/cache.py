"""Whole answers, given again for exactly the same request of the same key. Bounded in bytes and in time."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson

from chatd.backends import Completion
from chatd.engine.config import CacheSpec
from schemas.chat import ChatRequest

ENTRY_OVERHEAD_BYTES: Final = 600
"""What an entry weighs beside its texts."""

VALUE_WEIGHT: Final = 7
"""What a byte of JSON weighs as a value in memory, as measured: log probabilities are many small objects."""

NOT_ASKED: Final = {"stream", "stream_options", "user"}
"""What does not change the answer."""

CLEAN: Final = frozenset({"stop", "tool_calls"})
"""Endings worth keeping: a cut or a filtered answer may come out better next time."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer with the run that it was given in."""

    completion: Completion
    run_id: str


@dataclass(frozen=True, slots=True)
class _Entry:
    kept: Kept
    size: int
    until: float


class Cache:
    """The least recently used answer goes first. Belongs to one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Kept | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry.until:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.kept

    def put(self, key: bytes, kept: Kept, rules: CacheSpec) -> None:
        """Keep an answer that ended well, unless it alone is too large."""
        if kept.completion.finish_reason not in CLEAN or kept.completion.refusal:
            return
        size = _weight(kept.completion)
        if size > rules.bytes_max:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = _Entry(kept, size, self._clock() + rules.ttl_s)
        self.size += size
        while self.size > rules.bytes_max or len(self._entries) > rules.entries_max:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        self._entries.clear()
        self.size = 0

    def _drop(self, key: bytes) -> None:
        self.size -= self._entries.pop(key).size


def key_of(request: ChatRequest, *, principal: str | None, config_hash: str) -> bytes:
    """What makes two requests the same: who asks, how we are configured, and all that shapes the answer."""
    said = request.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=NOT_ASKED)
    hasher = hashlib.blake2b(digest_size=16)
    for part in (
        (principal or "").encode(),
        config_hash.encode(),
        orjson.dumps(said, option=orjson.OPT_SORT_KEYS),
    ):
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.digest()


def _weight(completion: Completion) -> int:
    texts = [completion.content or "", completion.reasoning or ""]
    texts += [call.function.arguments for call in completion.tool_calls]
    values = [completion.logprobs, completion.raw_usage]
    values += [call.extra_content for call in completion.tool_calls]
    size = sum(len(text.encode()) for text in texts)
    size += VALUE_WEIGHT * sum(len(orjson.dumps(value)) for value in values if value is not None)
    return ENTRY_OVERHEAD_BYTES + size
