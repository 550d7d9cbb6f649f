"""Inside a worker process: shards, and calls to them from two sides.

One thread writes, another reads, so that a large write does not hold up the searches between its steps.
"""

import contextlib
import ctypes
import os
import pathlib
import pickle
import signal
import socket
import sys
import threading
import time
from array import array
from collections import OrderedDict
from multiprocessing.connection import Connection, wait
from typing import Any, Final, Literal

from vectord.backends.channel import READ_BYTES, Frames, framed
from vectord.backends.edge import EdgeShard, EdgeStore
from vectord.backends.store import Query, StoreError, StoreFull, Where

PR_SET_PDEATHSIG: Final = 1
SWITCH_S: Final = 0.001
"""How long a thread may run Python while the other waits."""

CLOSE_PATIENCE_S: Final = 30.0

WHERES_MAX: Final = 256
"""Conditions of searches that are kept as read."""

Call = tuple[str, str, tuple[Any, ...], dict[str, Any]]
Reply = tuple[Literal["done", "store", "full", "value"], Any]


def serve(writes: Connection, reads: Connection, searches: socket.socket, *, nice: int) -> None:
    """Answer calls until the daemon closes its end, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which then tells us
    with contextlib.suppress(
        AttributeError, OSError
    ):  # Linux alone has it; elsewhere the closed pipe must do
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(nice)
    sys.setswitchinterval(SWITCH_S)
    shards = _Shards()
    threading.Thread(target=_Reader(shards, reads, searches).serve, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            writes.send(shards.answer(writes.recv()))


class _Shards:
    def __init__(self) -> None:
        self._store = EdgeStore()
        self._open: dict[str, EdgeShard] = {}

    def answer(self, call: Call) -> Reply:
        folder, method, args, kwargs = call
        try:
            return "done", self._do(folder, method, args, kwargs)
        except StoreFull as error:
            return "full", str(error)
        except StoreError as error:
            return "store", str(error)
        except ValueError as error:
            return "value", str(error)
        except Exception as error:  # noqa: BLE001 - a thread that ended would leave all its callers waiting
            return "store", f"{type(error).__name__}: {error}"  # the daemon logs it

    def _do(self, folder: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        if method == "create":
            self._store.create(pathlib.Path(folder), *args)
            return None
        if method == "open":  # also in the place of one that is open
            opened = self._store.open(pathlib.Path(folder), *args)
            before, self._open[folder] = self._open.get(folder), opened
            if before is not None:
                _close_when_free(before)
            return None
        if method == "close":
            self._open.pop(folder).close()
            return None
        return self.call(folder, method, args, kwargs)

    def call(self, folder: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        shard = self._open[folder]
        try:
            return getattr(shard, method)(*args, **kwargs)
        except StoreError:
            if self._open.get(folder) in (shard, None):
                raise
            return self.call(folder, method, args, kwargs)  # it was replaced under our hands


def _close_when_free(shard: EdgeShard) -> None:
    """Close a shard that nobody is given any more, once the other thread's last call to it has ended.

    The binding refuses to close one that is in use. One that stays so is left to that call: it takes no
    writes any more.
    """
    deadline = time.monotonic() + CLOSE_PATIENCE_S
    while True:
        try:
            shard.close()
        except StoreError:
            if time.monotonic() > deadline:
                return
            time.sleep(SWITCH_S)
        else:
            return


class _Reader:
    """Answers the calls that change nothing, and the searches that come as frames."""

    def __init__(self, shards: _Shards, calls: Connection, searches: socket.socket) -> None:
        self._shards = shards
        self._calls = calls
        self._searches = searches
        self._frames = Frames()
        self._wheres: OrderedDict[bytes, Where] = OrderedDict()

    def serve(self) -> None:
        sources: list[Connection | socket.socket] = [self._calls, self._searches]
        with contextlib.suppress(EOFError, OSError):
            while True:
                for source in wait(sources):
                    if source is self._searches:
                        self._search()
                    else:
                        self._calls.send(self._shards.answer(self._calls.recv()))

    def _search(self) -> None:
        data = self._searches.recv(READ_BYTES)
        if not data:
            raise EOFError
        for number, folder, vector, limit, exact, ef, parts, where in self._frames.feed(data):
            query = Query(limit, array("f", vector), exact=exact, ef=ef)
            try:
                hits = self._shards.call(folder, "search_rendered", (query, self._where(where), parts), {})
                reply: tuple[object, ...] = (number, hits, None)
            except Exception as error:  # noqa: BLE001 - the same; the daemon logs it
                reply = (number, None, f"{type(error).__name__}: {error}")
            self._searches.sendall(framed(reply))

    def _where(self, pickled: bytes) -> Where:
        where = self._wheres.get(pickled)
        if where is None:
            where = self._wheres[pickled] = pickle.loads(pickled)  # noqa: S301 - from the daemon that made us
            if len(self._wheres) > WHERES_MAX:
                self._wheres.popitem(last=False)
        return where
