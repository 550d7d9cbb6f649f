"""The protocol that our daemons serve: requests that have a door are answered without a task."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from starlette.types import Scope
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from services.protocol.doors import Direct, Doors, Porter, declared_length
from services.protocol.exchange import DirectExchange, Door
from services.protocol.guarded import ARRIVED, GuardedProtocol
from services.protocol.heads import Head


class EnvelopeProtocol(GuardedProtocol):
    """Holds requests that have a door back until their bodies are there.

    Then they are offered to it, where `admits` has nothing against them. All others are shown to the `porter`
    before there is a task for them.
    """

    def __init__(
        self,
        *args: Any,
        direct: Direct | None = None,
        admits: Callable[[Scope], bool] | None = None,
        porter: Porter | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._doors = direct if isinstance(direct, Doors | None) else Doors([direct])
        self._admits = admits
        self._porter = porter
        self._held: tuple[RequestResponseCycle, Any, Door] | None = None
        self._exchange: DirectExchange | None = None
        self._held_bytes = 0
        self._offering = False
        self._under_way: RequestResponseCycle | None = None
        self._read = b""
        self._last_head: Head | None = None

    def data_received(self, data: bytes) -> None:
        if self._doors is None or not self._is_between():
            super().data_received(data)
            return
        head = self._last_head
        message = head.begins(data) if head is not None else None
        if message is None and (head := self._doors.heads.find(data)) is not None:
            message = head.begins(data)
        if head is not None and message is not None:
            self._last_head = head
            self._take_again(head, *message)
            return
        self._read = data
        super().data_received(data)
        self._read = b""

    def _is_between(self) -> bool:
        """Whether the next byte begins a request, which nothing stands in the way of."""
        if self._in_head or self._in_body or self._unread or self.flow.write_paused:
            return False
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or (cycle.response_complete and cycle.keep_alive)

    def _take_again(self, head: Head, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Offer a whole request whose head was read before."""
        self._unset_keepalive_if_required()
        scope: Scope = {
            **head.scope,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "headers": headers,
            "state": self.app_state.copy(),
            ARRIVED: self._arrived_s(),
        }
        self.scope = cast("HTTPScope", scope)
        self.cycle = self._under_way = cycle = RequestResponseCycle(
            self.scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            self.access_log,
            self.server_state.default_headers,
            asyncio.Event(),
            expect_100_continue=False,
            keep_alive=True,
            on_response=self.on_response_complete,
        )
        cycle.more_body = False
        admitted = self._admits is None or self._admits(scope)
        if admitted and self._taken(DirectExchange(cycle, body, head.facts), head.door):
            return
        cycle.body += body
        cycle.message_event.set()
        self._show(cycle, self.app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._under_way = cycle
        door = self._door(cycle)
        if door is None:
            self._show(cycle, app)
        elif cycle.more_body:
            self._held = (cycle, app, door)
        elif self._offering:  # answered before `take` came back: many such in a row must not pile up
            self.loop.call_soon(self._offer, cycle, app, door)
        else:  # it was waiting behind another request of the same connection
            self._offer(cycle, app, door)

    def _show(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Let a request take the ordinary way, unless the porter turns it away."""
        if self._porter is None or self.flow.write_paused:
            super()._start_asgi_task(cycle, app)
            return
        if self._offering:  # as with doors, many in a row must not pile up
            self.loop.call_soon(self._show, cycle, app)
            return
        self._offering = True
        try:
            wait_s = self._porter(DirectExchange(cycle, b""))
        finally:
            self._offering = False
        if wait_s:
            self.loop.call_later(wait_s, super()._start_asgi_task, cycle, app)
        elif wait_s is not None:
            super()._start_asgi_task(cycle, app)

    def _door(self, cycle: RequestResponseCycle) -> Door | None:
        """The door for a request whose body, if it is not there yet, may be waited for."""
        # Who waits for leave to send a body is given it by ASGI's `receive`.
        if self._doors is None or cycle.waiting_for_100_continue or cycle.scope["method"] != "POST":
            return None
        door = self._doors.find(cycle.scope["path"])
        length = None if door is None else declared_length(cycle.scope)
        if door is None or length is None or length > door.body_bytes_max:
            return None
        if self._admits is not None and not self._admits(cast("Scope", cycle.scope)):
            return None  # the ordinary way says why
        if cycle.more_body:
            if self._doors.held_bytes + length > self._doors.held_bytes_max:
                return None
            self._held_bytes = length
            self._doors.held_bytes += length
        return door

    def _let_go(self) -> None:
        if self._doors is not None:
            self._doors.held_bytes -= self._held_bytes
        self._held, self._held_bytes = None, 0

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self._held is not None:
            # uvicorn stops reading until somebody asks, which we do only with all of it
            self.flow.resume_reading()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._held is not None:
            cycle, app, door = self._held
            self._let_go()
            self._offer(cycle, app, door)

    def _offer(self, cycle: RequestResponseCycle, app: Any, door: Door) -> None:
        if self.transport.is_closing():
            return
        if self.flow.write_paused:  # they do not read what they were answered before: the ordinary way waits
            super()._start_asgi_task(cycle, app)
            return
        exchange = DirectExchange(cycle, bytes(cycle.body))
        if not self._taken(exchange, door):
            self._show(cycle, app)
        elif self._read and self._doors is not None and cycle.keep_alive:
            self._doors.heads.keep(self._read, exchange.scope, exchange.body, door)

    def _taken(self, exchange: DirectExchange, door: Door) -> bool:
        self._exchange = exchange
        self._offering = True
        try:
            taken = door.take(exchange)
        finally:
            self._offering = False
        if not taken:
            self._exchange = None
        return taken

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._exchange is not None and self._exchange.when_full is not None:
            self._exchange.when_full()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._exchange is not None and self._exchange.when_ready is not None:
            self._exchange.when_ready()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._tell_gone()
        self._let_go()
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.when_gone is not None:
            exchange.when_gone()

    def _tell_gone(self) -> None:
        """Tell the request that is being answered; uvicorn tells the last one, which may wait behind it."""
        if self._under_way is not None and not self._under_way.response_complete:
            self._under_way.disconnected = True
            self._under_way.message_event.set()
