"""The real store, in processes of its own: the engine holds the interpreter while it works.

A search holds it for the better part of a millisecond, a large write for tens of them. In the daemon's own
process that would stop every request, health checks included. A worker that dies takes no point with it: it
is started again, and its shards are opened as they are needed.

To rebuild an index would hold it for minutes, so that is done by a process that comes and goes, on a copy.
"""

import multiprocessing
import pathlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final, Literal, cast

import structlog

from schemas.vectors import PointId
from vectord.backends import generations
from vectord.backends.channel import Channel
from vectord.backends.prompt import Done
from vectord.backends.store import (
    ENGINE_BYTES,
    Page,
    Query,
    Record,
    Scored,
    ShardInfo,
    ShardSpec,
    StoreError,
    StoreFull,
    StoreLost,
    Where,
    failure,
)
from vectord.backends.worker import Call, Reply, serve

log = structlog.get_logger(__name__)

STOP_TIMEOUT_S: Final = 30.0
SEARCHES_MAX: Final = 256
"""Searches under way in one worker without a thread; further ones take a thread, or are turned away."""

BUILDER_NICE: Final = 10
REPLAY_AT_ONCE: Final = 500
Read = Literal["get", "scroll", "count", "search", "info"]
Write = Literal["create", "open", "upsert", "delete", "flush", "optimize", "close"]
LOG_FOLDER: Final = "wal"
READS: Final = frozenset({"get", "scroll", "count", "search", "info"})


class WorkerStore:
    """Spreads shards over worker processes. Close it when every shard is closed."""

    def __init__(self, *, processes: int, call_timeout_s: float) -> None:
        """Start the processes. A call that takes longer than `call_timeout_s` fails, and ends its worker.

        Make it on a thread that lives as long as the daemon: a worker goes with the thread that
        started it.
        """
        self._call_timeout_s = call_timeout_s
        self._workers = [_Worker(str(number), call_timeout_s) for number in range(processes)]
        for worker in self._workers:
            worker.start()

    def create(self, folder: pathlib.Path, spec: ShardSpec) -> None:
        self._least_used().call(str(folder), "create", spec)

    def open(self, folder: pathlib.Path, spec: ShardSpec) -> "RemoteShard":
        try:
            generations.tidy(folder)
        except OSError as error:
            raise StoreError(f"cannot open the shard: {error}") from error
        shard = RemoteShard(self._least_used(), folder, spec, self.builder)
        shard.open()
        return shard

    @contextmanager
    def builder(self) -> "Iterator[_Worker]":
        """A worker for the length of a block, which leaves the processor to the others."""
        worker = _Worker("builder", self._call_timeout_s, nice=BUILDER_NICE)
        try:
            yield worker
        finally:
            worker.stop()

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()

    def _least_used(self) -> "_Worker":
        return min(self._workers, key=lambda worker: worker.shards)


class RemoteShard:
    """A shard that lives in a worker."""

    def __init__(
        self,
        worker: "_Worker",
        folder: pathlib.Path,
        spec: ShardSpec,
        builder: "Callable[[], AbstractContextManager[_Worker]]",
    ) -> None:
        self._worker = worker
        self._folder = folder
        self._spec = spec
        self._builder = builder
        self._writing = threading.Lock()
        self._changed: set[PointId] | None = (
            None  # while an index is rebuilt: what is not in it as it is here
        )

    @property
    def pid(self) -> int:
        """The process that holds the shard."""
        return self._worker.pid

    def open(self) -> None:
        self._worker.open(str(self._folder), self._spec)
        self._worker.shards += 1

    def upsert(self, records: Sequence[Record]) -> None:
        with self._writing:
            self._note([record.id for record in records])
            self._call("upsert", records)

    def delete(self, ids: Sequence[PointId]) -> None:
        with self._writing:
            self._note(ids)
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

    def start_search(self, query: Query, where: Where, parts: frozenset[str], done: Done) -> bool:
        return self._worker.start_search(str(self._folder), query, where, parts, done)

    def flush(self) -> None:
        """Sync the engine's log, from which it makes anew what it lacks.

        Its own flush syncs dozens of files, and holds the worker's interpreter for as long: on a slow disk
        searches would stand still for seconds.
        """
        try:
            with self._writing:  # a rebuild may put another folder in its place
                generations.sync(generations.current(self._folder) / LOG_FOLDER)
        except OSError as error:
            raise failure("cannot flush", error) from error

    def info(self) -> ShardInfo:
        return cast("ShardInfo", self._call("info"))

    def close(self) -> None:
        self._call("flush")
        self._call("close")
        self._worker.shards -= 1

    def optimize(self) -> None:
        """Have a copy rebuilt, and take its place. Reads and writes go on meanwhile.

        Writes wait while the copy is made, and while the last changes are carried over to it.
        """
        following = generations.following(self._folder)
        try:
            with self._builder() as builder:
                self._rebuild(builder, following)
            generations.tidy(self._folder)
        except BaseException as error:
            self._changed = None
            if generations.current(self._folder) != following:
                shutil.rmtree(following, ignore_errors=True)
            if isinstance(error, OSError):
                raise StoreError(f"cannot rebuild the index: {error}") from error
            raise

    def _rebuild(self, builder: "_Worker", following: pathlib.Path) -> None:
        name = str(following)
        with self._writing:
            self._call("flush")
            generations.copy(self._folder, following)
            self._changed = set()
        builder.open(name, self._spec)
        builder.call(name, "optimize")
        while len(self._changed) > REPLAY_AT_ONCE:
            with self._writing:
                changed, self._changed = self._changed, set()
            self._carry_over(builder, name, changed)
        builder.call(name, "flush")
        generations.sync(following)  # most of it, while nobody waits
        with self._writing:
            changed, self._changed = self._changed, None
            self._carry_over(builder, name, changed)
            builder.call(name, "flush")
            builder.call(name, "close")
            generations.sync(following)
            generations.switch(self._folder, following)
            self._worker.open(str(self._folder), self._spec)

    def _carry_over(self, builder: "_Worker", name: str, changed: set[PointId]) -> None:
        ids = list(changed)
        for start in range(0, len(ids), REPLAY_AT_ONCE):
            chunk = ids[start : start + REPLAY_AT_ONCE]
            there = self.get(chunk, with_vector=True)
            if there:
                builder.call(name, "upsert", there)
            if gone := list(set(chunk).difference(record.id for record in there)):
                builder.call(name, "delete", gone)

    def _note(self, ids: Sequence[PointId]) -> None:
        if self._changed is not None:
            self._changed.update(ids)

    def _call(self, method: Read | Write, *args: object, **kwargs: object) -> object:
        return self._worker.call(str(self._folder), method, *args, reopen_as=self._spec, **kwargs)


class _Lost(Exception):
    """The worker died, or took too long. The message is for the log."""


class _Pipe:
    """One call at a time, from any thread."""

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self.lock = threading.RLock()
        self._connection = connection
        self._timeout_s = timeout_s

    def exchange(self, call: Call) -> object:
        """Have it done. Raises `_Lost`, or what the shard raised. The lock is held by the caller."""
        try:
            self._connection.send(call)
            if not self._connection.poll(self._timeout_s):
                raise _Lost(f"no answer within {self._timeout_s:g} s")
            outcome, value = cast("Reply", self._connection.recv())
        except (EOFError, OSError) as error:
            raise _Lost(str(error) or type(error).__name__) from error
        if outcome == "full":
            raise StoreFull(value)
        if outcome == "store":
            raise StoreError(value)
        if outcome == "value":
            raise ValueError(value)
        return value

    def close(self) -> None:
        with self.lock:
            self._connection.close()


@dataclass
class _Life:
    """A process and the ways to it. They are closed when nobody uses them any more."""

    process: BaseProcess
    writes: _Pipe
    reads: _Pipe
    channel: Channel
    opened: set[str] = field(default_factory=set)


class _Worker:
    """One process at a time: a new one follows when it was lost."""

    def __init__(self, name: str, call_timeout_s: float, *, nice: int = 0) -> None:
        self.shards = 0
        self._name = name
        self._call_timeout_s = call_timeout_s
        self._nice = nice
        self._lock = threading.Lock()
        self._life: _Life | None = None

    @property
    def pid(self) -> int:
        return self.start().process.pid or 0

    def call(
        self,
        folder: str,
        method: Read | Write,
        *args: object,
        reopen_as: ShardSpec | None = None,
        **kwargs: object,
    ) -> object:
        """Have the worker do it. `reopen_as` opens the shard first in a worker that does not have it yet."""
        life = self.start()
        pipe = life.reads if method in READS else life.writes
        try:
            with pipe.lock:
                if reopen_as is not None and folder not in life.opened:
                    self._open(life, folder, reopen_as)
                value = pipe.exchange((folder, method, args, kwargs))
                if method == "close":
                    life.opened.discard(folder)
                return value
        except _Lost as error:
            raise self._lost(life, folder, error) from error

    def open(self, folder: str, spec: ShardSpec) -> None:
        """Open a shard, also in the place of one of the same name."""
        life = self.start()
        try:
            with life.writes.lock:
                life.opened.discard(folder)
                self._open(life, folder, spec)
        except _Lost as error:
            raise self._lost(life, folder, error) from error

    def _lost(self, life: _Life, folder: str, error: _Lost) -> StoreError:
        self._end(life)
        log.warning("store worker lost", worker=self._name, reason=str(error))
        told = f"store worker {self._name} was lost: {error}"
        # The engine writes to memory maps: the system ends it where a page of one finds no room.
        return StoreLost(told) if _has_room(folder) else StoreFull(f"{told}; the disk is full")

    def _open(self, life: _Life, folder: str, spec: ShardSpec) -> None:
        with life.writes.lock:
            if folder not in life.opened:
                if not _has_room(folder):  # it would end the worker, and with it the reads of other shards
                    raise StoreFull(f"less than {ENGINE_BYTES} bytes are free to open the shard with")
                life.writes.exchange((folder, "open", (spec,), {}))
                life.opened.add(folder)

    def start_search(
        self, folder: str, query: Query, where: Where, parts: frozenset[str], done: Done
    ) -> bool:
        life = self._life
        if life is None or folder not in life.opened:
            return False
        return life.channel.start(folder, query, where, parts, done)

    def start(self) -> _Life:
        """The process, which is started if there is none."""
        with self._lock:
            if self._life is None:
                self._life = self._started()
            return self._life

    def _started(self) -> _Life:
        context = multiprocessing.get_context("spawn")
        (writes, their_writes), (reads, their_reads) = context.Pipe(), context.Pipe()
        searches, their_searches = socket.socketpair()
        with their_writes, their_reads, their_searches:
            process = context.Process(
                target=serve,
                args=(their_writes, their_reads, their_searches),
                kwargs={"nice": self._nice},
                name=f"vectord-store-{self._name}",
                daemon=True,
            )
            process.start()
        timeout_s = self._call_timeout_s
        channel = Channel(searches, under_way_max=SEARCHES_MAX, timeout_s=timeout_s)
        return _Life(process, _Pipe(writes, timeout_s), _Pipe(reads, timeout_s), channel)

    def stop(self) -> None:
        """End it in order. Nothing may be under way."""
        with self._lock:
            life, self._life = self._life, None
        if life is not None:
            life.writes.close()
            life.process.join(STOP_TIMEOUT_S)
            self._bury(life)

    def _end(self, life: _Life) -> None:
        with self._lock:
            if self._life is not life:  # another thread saw to it
                return
            self._life = None
            self._bury(life)

    def _bury(self, life: _Life) -> None:
        life.process.kill()
        life.process.join()
        life.process.close()
        life.channel.abandon()
        life.writes.close()
        life.reads.close()


def _has_room(folder: str) -> bool:
    """Whether the engine can work on a shard's disk."""
    try:
        return shutil.disk_usage(pathlib.Path(folder).parent).free >= ENGINE_BYTES
    except OSError:  # nothing is there to ask; the engine will say what it misses
        return True
