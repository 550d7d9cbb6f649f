"""Searches that are begun on the event loop and answered there, without a thread for each.

A store may offer them besides the blocking ones. What they find is JSON already; the role stands beside it,
so that the gate can look at every hit.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from vectord.backends.store import Query, StoreError, Where


class Rendered(NamedTuple):
    """A hit as the JSON object that goes into the answer, and what has to be known of it on the way."""

    role: str | None
    score: float
    json: bytes


Found = Sequence[Rendered] | StoreError
Done = Callable[[Found], None]


class PromptShard(Protocol):
    def start_search(self, query: Query, where: Where, parts: frozenset[str], done: Done) -> bool:
        """Begin a dense search; `done` is told what was found, later and once, on this event loop.

        `parts` are those of `payload` and `text` that the hits are to have. False: nothing was begun.
        """
