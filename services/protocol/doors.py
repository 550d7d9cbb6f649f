"""Which requests take the short way: doors by their paths, and the porter who turns strangers away."""

from collections.abc import Callable, Iterable
from re import Pattern
from typing import Any, Final

from starlette.routing import compile_path

from services.protocol.exchange import DirectExchange, Door
from services.protocol.heads import Heads

JSON_TYPE: Final = b"application/json"

HELD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of bodies on their way to doors."""

LENGTH_DIGITS_MAX: Final = 10


class Doors:
    """Several doors, found by the path of a request.

    `held_bytes` is the declared size of the bodies that are waited for, on all connections together. It has a
    limit, since nobody has looked at who sends them: with more to wait for, requests take the ordinary way.
    """

    def __init__(self, doors: Iterable[Door], *, held_bytes_max: int = HELD_BYTES_MAX) -> None:
        self.held_bytes = 0
        self.held_bytes_max = held_bytes_max
        self.heads = Heads()
        self._exact: dict[str, Door] = {}
        self._templates: list[tuple[Pattern[str], Door]] = []
        for door in doors:
            if "{" in door.path:
                self._templates.append((compile_path(door.path)[0], door))  # as the router reads it
            else:
                self._exact[door.path] = door

    def find(self, path: str) -> Door | None:
        """The door of a path, if it has one."""
        door = self._exact.get(path)
        if door is None:
            for pattern, candidate in self._templates:
                if pattern.match(path):
                    return candidate
        return door


Direct = Door | Doors
"""What `services.daemon.build` can be given to answer requests directly: one door, or several."""

Porter = Callable[[DirectExchange], float | None]
"""Turns away who may not come in, judging by the head alone: None if it did. Others take the ordinary way, in
so many seconds."""


def says_json(scope: Any) -> bool:
    """Whether the one content type that a request declares is JSON."""
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    return len(types) == 1 and (types[0] == JSON_TYPE or types[0].startswith(JSON_TYPE + b";"))


def declared_length(scope: Any) -> int | None:
    """The size of a request's body in bytes, where it is declared, and not that of a compressed one."""
    length = None
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value) if len(value) < LENGTH_DIGITS_MAX and value.isdigit() else None
        elif name == b"content-encoding":
            return None
    return length
