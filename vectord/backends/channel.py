"""Searches on their way to a worker and back: frames on a socket, many under way, no thread for any.

A frame is four bytes of length and a tuple in `marshal`'s form, between two processes of one interpreter:
to the worker `(number, folder, vector, limit, exact, ef, parts, where)`, the vector as float32 and `where`
pickled; back `(number, hits, None)` with hits as `Rendered`, or `(number, None, why)`.
"""

import asyncio
import marshal
import pickle
import socket
import struct
import time
from array import array
from collections.abc import Iterator
from typing import Any, Final

from vectord.backends.prompt import Done, Rendered
from vectord.backends.store import Query, StoreError, StoreLost, Where

LENGTH: Final = struct.Struct("<I")
READ_BYTES: Final = 256 * 1024
EVERYWHERE: Final = pickle.dumps(Where())
LOOK_S: Final = 5.0
"""How often the oldest search under way is looked at."""


def framed(value: tuple[Any, ...]) -> bytes:
    body = marshal.dumps(value)
    return LENGTH.pack(len(body)) + body


class Frames:
    """Puts frames together from what a socket gives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Any, ...]]:
        """The frames that are whole now."""
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= LENGTH.size:
                (length,) = LENGTH.unpack_from(buffer, at)
                end = at + LENGTH.size + length
                if len(buffer) < end:
                    break
                frame = marshal.loads(memoryview(buffer)[at + LENGTH.size : end])  # noqa: S302 - our own process
                at = end
                yield frame
        finally:
            del buffer[:at]


class Channel:
    """The daemon's end. Everything but `__init__` and `close` happens on one event loop."""

    def __init__(self, sock: socket.socket, *, under_way_max: int, timeout_s: float) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._under_way_max = under_way_max
        self._timeout_s = timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._frames = Frames()
        self._unsent = bytearray()
        self._sending = False
        self._number = 0
        self._waiting: dict[int, tuple[Done, float]] = {}
        self._look: asyncio.TimerHandle | None = None
        self.closed = False

    def start(self, folder: str, query: Query, where: Where, parts: frozenset[str], done: Done) -> bool:
        if self.closed or len(self._waiting) >= self._under_way_max:
            return False
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._socket, self._readable)
        assert query.vector is not None
        self._number += 1
        frame = framed(
            (
                self._number,
                folder,
                array("f", query.vector).tobytes(),
                query.limit,
                query.exact,
                query.ef,
                parts,
                EVERYWHERE if where == Where() else pickle.dumps(where),
            )
        )
        self._waiting[self._number] = (done, time.monotonic())
        if self._look is None:
            self._look = self._loop.call_later(min(LOOK_S, self._timeout_s), self._look_for_late)
        self._send(frame)
        return True

    def close(self, reason: str = "the store is closed") -> None:
        """Give up what is under way. The worker sees the end of its socket."""
        if self.closed:
            return
        self.closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            if self._look is not None:
                self._look.cancel()
        self._socket.close()
        waiting, self._waiting = self._waiting, {}
        for done, _ in waiting.values():
            done(StoreLost(reason))

    def abandon(self) -> None:
        """From any thread: the worker is gone."""
        if self._loop is None:
            self.close()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.close, "the store worker was lost")

    def _send(self, frame: bytes) -> None:
        """Send it with all others of this turn of the loop: a system call for each would be dear."""
        self._unsent += frame
        if not self._sending:
            assert self._loop is not None
            self._sending = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self.closed:
            return
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except ConnectionError:  # the worker is lost, as the reader will see
            self._unsent.clear()
        assert self._loop is not None
        if self._unsent:
            self._loop.add_writer(self._socket, self._flush)
        else:
            self._sending = False
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.close("the store worker was lost")
            return
        for number, hits, why in self._frames.feed(data):
            done, _ = self._waiting.pop(number)
            done(StoreError(why) if hits is None else [Rendered(*hit) for hit in hits])

    def _look_for_late(self) -> None:
        """A search that takes longer than any call may ends them all: the worker hangs."""
        self._look = None
        if not self._waiting:
            return
        oldest = next(iter(self._waiting.values()))[1]
        if time.monotonic() - oldest > self._timeout_s:
            self.close(f"no answer within {self._timeout_s:g} s")
        elif self._loop is not None:
            self._look = self._loop.call_later(min(LOOK_S, self._timeout_s), self._look_for_late)
