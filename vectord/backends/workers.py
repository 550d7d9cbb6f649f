"""The real store, in processes of its own: the engine holds the interpreter while it works.

A search holds it for about a millisecond, rebuilding an index for seconds. In the daemon's own process that
would stop every request, health checks included; here it stops the collections of one worker. A worker
that dies takes no point with it: it is started again, and its shards are opened as they are needed.
"""

import contextlib
import ctypes
import multiprocessing
import pathlib
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Final, Literal, cast

import structlog

from schemas.vectors import PointId
from vectord.backends.edge import EdgeStore
from vectord.backends.store import (
    Page,
    Query,
    Record,
    Scored,
    Shard,
    ShardInfo,
    ShardSpec,
    StoreError,
    Where,
)

log = structlog.get_logger(__name__)

PR_SET_PDEATHSIG: Final = 1
START_TIMEOUT_S: Final = 30.0

Method = Literal[
    "create", "open", "upsert", "delete", "get", "scroll", "count", "search", "flush", "optimize",
    "info", "close",
]  # fmt: skip
Call = tuple[str, Method, tuple[Any, ...], dict[str, Any]]
Reply = tuple[Literal["done", "store", "value"], Any]


class WorkerStore:
    """Spreads shards over worker processes. Close it when every shard is closed."""

    def __init__(self, *, processes: int, call_timeout_s: float) -> None:
        """Start the processes. A call that takes longer than `call_timeout_s` fails, and ends its worker.

        Make it on a thread that lives as long as the daemon: a worker goes with the thread that
        started it.
        """
        self._workers = [_Worker(number, call_timeout_s) for number in range(processes)]
        for worker in self._workers:
            worker.start()

    def create(self, folder: pathlib.Path, spec: ShardSpec) -> None:
        self._least_used().call(str(folder), "create", spec)

    def open(self, folder: pathlib.Path, spec: ShardSpec) -> "RemoteShard":
        worker = self._least_used()
        shard = RemoteShard(worker, str(folder), spec)
        shard.open()
        return shard

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()

    def _least_used(self) -> "_Worker":
        return min(self._workers, key=lambda worker: worker.shards)


class RemoteShard:
    """A shard that lives in a worker."""

    def __init__(self, worker: "_Worker", folder: str, spec: ShardSpec) -> None:
        self._worker = worker
        self._folder = folder
        self._spec = spec

    def open(self) -> None:
        self._worker.call(self._folder, "open", self._spec)
        self._worker.shards += 1

    def upsert(self, records: Sequence[Record]) -> None:
        self._call("upsert", records)

    def delete(self, ids: Sequence[PointId]) -> None:
        self._call("delete", ids)

    def get(self, ids: Sequence[PointId], *, with_vector: bool) -> list[Record]:
        return cast("list[Record]", self._call("get", ids, with_vector=with_vector))

    def scroll(self, where: Where, *, limit: int, cursor: str | None, with_vector: bool) -> Page:
        answer = self._call("scroll", where, limit=limit, cursor=cursor, with_vector=with_vector)
        return cast("Page", answer)

    def count(self, where: Where) -> int:
        return cast("int", self._call("count", where))

    def search(self, query: Query, where: Where) -> list[Scored]:
        return cast("list[Scored]", self._call("search", query, where))

    def flush(self) -> None:
        self._call("flush")

    def optimize(self) -> None:
        self._call("optimize")

    def info(self) -> ShardInfo:
        return cast("ShardInfo", self._call("info"))

    def close(self) -> None:
        self._call("close")
        self._worker.shards -= 1

    def _call(self, method: Method, *args: object, **kwargs: object) -> object:
        return self._worker.call(self._folder, method, *args, reopen_as=self._spec, **kwargs)


class _Worker:
    """One process, one call at a time."""

    def __init__(self, number: int, call_timeout_s: float) -> None:
        self.shards = 0
        self._number = number
        self._call_timeout_s = call_timeout_s
        self._lock = threading.Lock()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._opened: set[str] = set()

    def call(
        self,
        folder: str,
        method: Method,
        *args: object,
        reopen_as: ShardSpec | None = None,
        **kwargs: object,
    ) -> object:
        """Have the worker do it. `reopen_as` opens the shard first in a worker that does not have it yet."""
        with self._lock:
            if self._process is None:
                self.start()
            if reopen_as is not None and folder not in self._opened:
                self._exchange((folder, "open", (reopen_as,), {}))
            return self._exchange((folder, method, args, kwargs))

    def stop(self) -> None:
        with self._lock:
            if self._process is not None and self._pipe is not None:
                self._pipe.close()
                self._process.join(START_TIMEOUT_S)
                self._end()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs,), name=f"vectord-store-{self._number}", daemon=True
        )
        self._process.start()
        theirs.close()

    def _exchange(self, call: Call) -> object:
        assert self._pipe is not None
        try:
            self._pipe.send(call)
            if not self._pipe.poll(self._call_timeout_s):
                raise TimeoutError(f"no answer within {self._call_timeout_s:g} s")
            outcome, value = cast("Reply", self._pipe.recv())
        except (EOFError, OSError) as error:  # TimeoutError is an OSError
            self._end()
            log.warning("store worker lost", worker=self._number, reason=str(error) or type(error).__name__)
            raise StoreError(f"store worker {self._number} was lost: {error!r}") from error
        if outcome == "store":
            raise StoreError(value)
        if outcome == "value":
            raise ValueError(value)
        folder, method = call[:2]
        if method == "open":
            self._opened.add(folder)
        elif method == "close":
            self._opened.discard(folder)
        return value

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None
        self._opened.clear()


# --- inside the worker ------------------------------------------------------------------------


def _serve(pipe: Connection) -> None:
    """Answer calls until the daemon closes its end, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which then tells us
    with contextlib.suppress(
        AttributeError, OSError
    ):  # Linux alone has it; elsewhere the closed pipe must do
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    store = EdgeStore()
    shards: dict[str, Shard] = {}
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send(_answer(store, shards, pipe.recv()))


def _answer(store: EdgeStore, shards: dict[str, Shard], call: Call) -> Reply:
    folder, method, args, kwargs = call
    try:
        if method == "create":
            store.create(pathlib.Path(folder), *args)
            return "done", None
        if method == "open":
            shards[folder] = store.open(pathlib.Path(folder), *args)
            return "done", None
        shard = shards.pop(folder) if method == "close" else shards[folder]
        return "done", getattr(shard, method)(*args, **kwargs)
    except StoreError as error:
        return "store", str(error)
    except ValueError as error:
        return "value", str(error)
