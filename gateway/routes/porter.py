"""Turns strangers away at little cost: a flood of bad keys must not hold up those who have good ones."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from re import Pattern
from typing import Final

from starlette.routing import compile_path
from starlette.types import Scope

from gateway.engine import Doorkeeper
from gateway.routes.origins import is_page
from gateway.routes.passages import PASSAGES, Passage, authorization_of, refusal
from services.context import RequestContext
from services.errors import Unauthenticated
from services.middleware import OPS_PATHS, Frame, arrived_s
from services.protocol import DirectExchange

BURST_S: Final = 0.1
"""So much of the rate may be used at once."""

LIVENESS: Final = "/healthz"
"""Who asks for it too late thinks that we are dead, and it costs next to nothing."""

REPORTS: Final = OPS_PATHS - {LIVENESS}
REPORTS_PER_S_MAX: Final = 20
OTHERS_PER_S_MAX: Final = 200
"""Of what else strangers can ask for: routes that do not exist, methods that they do not have."""


class Turns:
    """So many a second: at once while there are fewer, and then each when it is its turn."""

    def __init__(self, per_s_max: float) -> None:
        self._interval_s = 1 / per_s_max
        self._next = 0.0

    def wait_s(self) -> float:
        """Take a turn; seconds until it comes."""
        now = asyncio.get_running_loop().time()
        self._next = max(self._next, now - BURST_S) + self._interval_s
        return max(0.0, self._next - now)


class Porter:
    """Answers 401 on the passages. What has no passage takes the ordinary way, with its 404 or 405.

    `per_s_max` answers a second, and no more: further strangers wait for theirs, and with it for the next
    thing that they can ask. Each connection waits for one answer at most, so as many wait as there may be
    connections. What takes the ordinary way costs more than a refusal, and has turns of its own.
    """

    def __init__(self, frame: Frame, *, per_s_max: int, pages: bool) -> None:
        """`pages`: those of other origins may ask, and read why they are refused: in the ordinary way."""
        self._frame = frame
        self._pages = pages
        self._refusals = Turns(per_s_max)
        self._reports = Turns(REPORTS_PER_S_MAX)
        self._others = Turns(OTHERS_PER_S_MAX)
        self._exact: dict[tuple[str, str], Passage] = {}
        self._templates: dict[str, list[tuple[Pattern[str], Passage]]] = {}
        for passage in PASSAGES:
            if "{" in passage.path:
                pattern = compile_path(passage.path)[0]  # as the router reads it
                self._templates.setdefault(passage.method, []).append((pattern, passage))
            else:
                self._exact[passage.method, passage.path] = passage

    def __call__(self, exchange: DirectExchange) -> float | None:
        """None for a caller who was turned away; the seconds that another has to wait."""
        scope = exchange.scope
        doorkeeper: Doorkeeper = scope["state"]["doorkeeper"]
        if self._frame.drain.draining:
            return 0.0
        try:
            doorkeeper.identify(authorization_of(scope["headers"]))
        except Unauthenticated as error:
            passage = self._passage(scope)
            if passage is None or (self._pages and is_page(scope)):
                return self._wait_s(scope["path"])
            scope["route"] = passage  # by whose `path` metrics and logs know it
            request = self._frame.begin(scope)
            self._in_turn(partial(self._refuse, exchange, request, error))
            return None
        return 0.0

    def _wait_s(self, path: str) -> float:
        if path == LIVENESS:
            return 0.0
        return (self._reports if path in REPORTS else self._others).wait_s()

    def _in_turn(self, refuse: Callable[[], None]) -> None:
        if wait_s := self._refusals.wait_s():
            asyncio.get_running_loop().call_later(wait_s, refuse)
        else:
            refuse()

    def _passage(self, scope: Scope) -> Passage | None:
        method, path = scope["method"], scope["path"]
        if (passage := self._exact.get((method, path))) is not None:
            return passage
        templates = self._templates.get(method, ())
        return next((passage for pattern, passage in templates if pattern.match(path)), None)

    def _refuse(self, exchange: DirectExchange, request: RequestContext, error: Unauthenticated) -> None:
        scope = exchange.scope
        headers, body = refusal(scope["path"], error, request.request_id)
        exchange.respond(error.status, headers, body)
        self._frame.end(scope, request, error.status, time.perf_counter() - arrived_s(scope))
