"""What the dispatcher gives back: an answer in one piece, or a stream that has begun."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from chatd.backends import Completion, Delta
from chatd.engine.calls import Call


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer in one piece. `headers` go with it."""

    call: Call
    completion: Completion
    headers: dict[str, str]


class Deltas:
    """What a stream says, its first delta included. Closing it ends the call."""

    def __init__(self, first: Delta, rest: AsyncGenerator[Delta, None]) -> None:
        self._first: Delta | None = first
        self._rest = rest

    def __aiter__(self) -> "Deltas":
        return self

    async def __anext__(self) -> Delta:
        if (first := self._first) is not None:
            self._first = None
            return first
        return await anext(self._rest)

    async def aclose(self) -> None:
        self._first = None
        await self._rest.aclose()


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream whose first delta is there: from here on nothing but what it says can change."""

    call: Call
    deltas: Deltas
    headers: dict[str, str]
