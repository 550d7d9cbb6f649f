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
from gateway.routes.passages import PASSAGES, Passage, authorization_of, encoded
from services.context import RequestContext
from services.errors import Unauthenticated
from services.middleware import Frame, arrived_s, error_headers
from services.protocol import DirectExchange

JSON: Final = (b"content-type", b"application/json")


BURST_S: Final = 0.1
"""So much of the rate may be used at once."""


class Porter:
    """Answers 401 on the passages. What has no passage takes the ordinary way, with its 404 or 405.

    `per_s_max` answers a second, and no more: further strangers wait for theirs, and with it for the next
    thing that they can ask. Each connection waits for one answer at most, so as many wait as there may be
    connections.
    """

    def __init__(self, frame: Frame, *, per_s_max: int) -> None:
        self._frame = frame
        self._interval_s = 1 / per_s_max
        self._turn = 0.0
        self._exact: dict[tuple[str, str], Passage] = {}
        self._templates: dict[str, list[tuple[Pattern[str], Passage]]] = {}
        for passage in PASSAGES:
            if "{" in passage.path:
                pattern = compile_path(passage.path)[0]  # as the router reads it
                self._templates.setdefault(passage.method, []).append((pattern, passage))
            else:
                self._exact[passage.method, passage.path] = passage

    def __call__(self, exchange: DirectExchange) -> bool:
        """Whether the caller was turned away, by the head of their request alone."""
        scope = exchange.scope
        doorkeeper: Doorkeeper = scope["state"]["doorkeeper"]
        if self._frame.drain.draining:
            return False
        try:
            doorkeeper.identify(authorization_of(scope["headers"]))
        except Unauthenticated as error:
            passage = self._passage(scope)
            if passage is None:
                return False
            scope["route"] = passage  # by whose `path` metrics and logs know it
            request = self._frame.begin(scope)
            self._in_turn(partial(self._refuse, exchange, request, error))
            return True
        return False

    def _in_turn(self, refuse: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._turn = max(self._turn, now - BURST_S) + self._interval_s
        if self._turn <= now:
            refuse()
        else:
            loop.call_at(self._turn, refuse)

    def _passage(self, scope: Scope) -> Passage | None:
        method, path = scope["method"], scope["path"]
        if (passage := self._exact.get((method, path))) is not None:
            return passage
        templates = self._templates.get(method, ())
        return next((passage for pattern, passage in templates if pattern.match(path)), None)

    def _refuse(self, exchange: DirectExchange, request: RequestContext, error: Unauthenticated) -> None:
        scope = exchange.scope
        headers = [JSON, *encoded(error_headers(error)), (b"x-request-id", request.request_id.encode())]
        body = error.envelope(request.request_id).model_dump_json().encode()
        exchange.respond(error.status, headers, body)
        self._frame.end(scope, request, error.status, time.perf_counter() - arrived_s(scope))
