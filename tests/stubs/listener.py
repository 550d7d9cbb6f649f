"""What stub servers listen with: connections on loopback, each in a task of its own."""

import asyncio
from collections.abc import Awaitable, Callable

Exchange = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[bool]]
"""Answers one request of the connection of this number, from 1; says whether there may be another."""


class Listener:
    """`taken` counts the connections that there were. `changed` is told when one comes or goes."""

    def __init__(self, exchange: Exchange, *, changed: Callable[[], None] = lambda: None) -> None:
        self.taken = 0
        self._exchange = exchange
        self._changed = changed
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._tasks)

    async def start(self, port: int = 0) -> int:
        """Listen, on a free port unless one is given; returns the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        taken: int = self._server.sockets[0].getsockname()[1]
        return taken

    async def stop(self) -> None:
        """Die: no new connections, and those there are break off."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.taken += 1
        number = self.taken
        self._changed()
        try:
            while await self._exchange(reader, writer, number):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            self._changed()
            writer.close()
