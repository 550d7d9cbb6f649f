"""How long a client may take to say what it wants, and how many may be there at once."""

import resource
from dataclasses import dataclass
from typing import Final, Literal

BODY_BYTES_MIN: Final = 1024
"""Of a body, in each stretch of `body_timeout_s`: slower ones only hold a place."""

FILES_KEPT: Final = 1024
"""Of those that may be open, for connections to others and for files: half, where there are so few."""

Stage = Literal["head", "body"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a server holds its connections to. Seconds for a head, seconds for the next part of a body."""

    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    connections_max: int = 4096


def connections_that_fit(wanted: int) -> int:
    """How many of `wanted` connections the limit of open files leaves room for, once it is raised so far.

    Were all files taken by connections that only sit there, nobody could be served any more.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + FILES_KEPT if most == resource.RLIM_INFINITY else min(wanted + FILES_KEPT, most)
    if files > now:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    files = max(files, now)
    return min(wanted, files - min(FILES_KEPT, files // 2))


class Patience:
    """What is known of one connection between two looks: which message it is at, since when, and how far.

    It costs a request nothing: messages are told apart by their scopes, of which each has one of its own.
    """

    __slots__ = ("_body_bytes", "_message", "_since", "_stage")

    def __init__(self) -> None:
        self._stage: Stage | None = None
        self._message: object = None
        self._since = 0.0
        self._body_bytes = 0

    def is_over(
        self, stage: Stage | None, message: object, body_bytes: int, now: float, bounds: Bounds
    ) -> bool:
        """Whether the client has been waited for long enough. `stage` None: it is not its turn."""
        if stage != self._stage or message is not self._message or stage is None:
            self._begin(stage, message, body_bytes, now)
            return False
        waited_s = now - self._since
        if stage == "head":
            return waited_s >= bounds.head_timeout_s
        if waited_s < bounds.body_timeout_s:
            return False
        enough = body_bytes - self._body_bytes >= BODY_BYTES_MIN
        self._begin(stage, message, body_bytes, now)
        return not enough

    def _begin(self, stage: Stage | None, message: object, body_bytes: int, now: float) -> None:
        self._stage, self._message, self._body_bytes, self._since = stage, message, body_bytes, now
