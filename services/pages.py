"""Keeps web pages away from a server that serves whoever reaches it: browsers bring requests of any site.

A page can send them across origins, which browsers do without asking first where they look plain, and say in
`origin`. Or it makes its own name lead here once it is loaded (DNS rebinding): then `host` is that name.
"""

import ipaddress
from collections.abc import Callable, Sequence
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from services.errors import Forbidden

UNREGISTERED: Final = (".localhost", ".local", ".internal")
"""Ends of names that nobody can have on the internet, as one without a dot."""


def is_near(authority: str) -> bool:
    """Whether `host`, or `host:port`, is an address, or a name that no site can have."""
    host = authority.partition("]")[0].lstrip("[") if authority[:1] == "[" else authority.partition(":")[0]
    name = host.rstrip(".").lower()
    if "." not in name or name.endswith(UNREGISTERED):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class PageGuard:
    """Tells requests that a page from elsewhere may have sent, while `is_open` says that anybody is served.

    Pages of `origins` may send what they like; `*` stands for all.
    """

    def __init__(self, is_open: Callable[[], bool], origins: Sequence[str] = ()) -> None:
        self._is_open = is_open
        self._origins = frozenset(origins)

    def admits(self, scope: Scope) -> bool:
        if not self._is_open():
            return True
        return all(
            self._is_fine(name, str(value, "latin-1"))
            for name, value in scope["headers"]
            if name in (b"host", b"origin")
        )

    def _is_fine(self, name: bytes, value: str) -> bool:
        if name == b"host":
            return is_near(value)
        if self._origins & {value, "*"}:
            return True
        scheme, _, authority = value.partition("://")
        return scheme in ("http", "https") and is_near(authority)


class PageMiddleware:
    """Refuses what a guard does not admit, but for `open_paths`, which do nothing and tell no secrets."""

    def __init__(self, app: ASGIApp, *, guard: PageGuard, open_paths: frozenset[str]) -> None:
        self._app = app
        self._guard = guard
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and scope["path"] not in self._open_paths
            and not self._guard.admits(scope)
        ):
            raise Forbidden(
                "this may come from a web page, and here nobody has to show a key: "
                "ask from a program, for 127.0.0.1 or localhost, or make keys with `stillhouse keys create`",
                code="foreign_page",
            )
        await self._app(scope, receive, send)
