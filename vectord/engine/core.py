"""What vectord does with points and roles: write, read, count and delete, each through the gate."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from schemas.vectors import (
    Collection,
    CollectionList,
    CollectionSpec,
    CountResponse,
    DeleteResponse,
    Durability,
    EngineName,
    GetRequest,
    Migration,
    PointSelector,
    PointsResponse,
    RoleCatalogue,
    ScrollRequest,
    UpsertRequest,
    UpsertResponse,
)
from services.errors import Forbidden, InvalidRequest, Unavailable
from vectord.backends import Record, Scored
from vectord.engine.benchmark import Benchmark
from vectord.engine.changes import Changes
from vectord.engine.collections import Collections
from vectord.engine.disk import Disk
from vectord.engine.embedding import Embedder
from vectord.engine.flushes import Flushes
from vectord.engine.gate import Gatekeeper, Limited
from vectord.engine.limits import Limits, at_most
from vectord.engine.metrics import Metrics
from vectord.engine.moves import Moves
from vectord.engine.opened import Opened, refuse_changed
from vectord.engine.points import Rules, check_points, stored
from vectord.engine.prompt import PromptSearches
from vectord.engine.recall import Recall
from vectord.engine.roles import Roles
from vectord.engine.runner import Runner
from vectord.engine.searches import Searches

log = structlog.get_logger(__name__)

STORED_FACTOR: Final = 4
"""Bytes on the disk for one of a point, at most: it goes to a log, to its place, and to indexes."""


class Engine:
    def __init__(
        self,
        collections: Collections,
        moves: Moves,
        disk: Disk,
        embedder: Embedder,
        *,
        runner: Runner,
        limits: Limits,
        metrics: Metrics,
        recall: Recall,
        changes: Changes,
        flushes: Flushes,
    ) -> None:
        self._collections = collections
        self._moves = moves
        self._disk = disk
        self._embedder = embedder
        self._runner = runner
        self._limits = limits
        self._metrics = metrics
        self._recall = recall
        self._changes = changes
        self._flushes = flushes
        self._roles = Roles(RoleCatalogue(roles=[]))
        self._changing_roles = asyncio.Lock()
        self.benchmark = Benchmark(
            collections,
            lambda: self._roles,
            runner=runner,
            limits=limits,
            timeout_s=limits.benchmark_timeout_s,
        )
        self._gatekeeper = Gatekeeper(lambda: self._roles, limits=limits, metrics=metrics)
        self.searches = Searches(
            collections,
            embedder,
            self._gatekeeper,
            runner=runner,
            limits=limits,
            metrics=metrics,
            recall=recall,
        )
        self.prompt = PromptSearches(
            collections, lambda: self._roles, limits=limits, metrics=metrics, recall=recall
        )

    async def start(self) -> None:
        self._roles = Roles(await self._runner.run(self._disk.read_roles))
        await self._collections.open_all()

    async def check_storage(self) -> None:
        """Raise unless the folder can be written and every collection is open."""
        await self._runner.run(self._disk.check_writable)
        if self._collections.broken:
            raise Unavailable(f"collections that cannot be opened: {', '.join(self._collections.broken)}")

    async def check_disk(self) -> None:
        """Raise unless there is room to write."""
        self._disk.check_free()

    # --- collections ---

    async def create(self, name: str, spec: CollectionSpec) -> Collection:
        return await self._collections.create(name, spec)

    async def describe(self, name: str) -> Collection:
        with self._collections.use(name) as opened:
            return await self._collections.describe(opened)

    async def all(self) -> CollectionList:
        return CollectionList(collections=await self._collections.describe_all())

    async def migrate(self, name: str, engine: EngineName, limited: Limited) -> Migration:
        """Begin to move a collection to another engine. Not for keys that see only a part of it."""
        _refuse_limited(limited, f"moving the collection {name!r} moves other roles' points too")
        await self._collections.check_engine(engine)
        return self._moves.migrate(name, engine)

    async def drop(self, name: str, limited: Limited) -> Collection:
        """Delete a collection; the answer is what it was.

        A key limited to some roles may not take a gated one from the others.
        """
        with self._collections.use(name) as opened:
            if opened.spec.gated:
                _refuse_limited(limited, f"the gated collection {name!r} holds other roles' points too")
            described = await self._collections.describe(opened)
        await self._collections.delete(name)
        self._recall.forget(name)
        return described

    # --- roles ---

    def catalogue(self) -> RoleCatalogue:
        return self._roles.catalogue

    async def set_catalogue(self, catalogue: RoleCatalogue, limited: Limited) -> RoleCatalogue:
        """Replace the catalogue; it holds for every request that comes after."""
        _refuse_limited(limited, "the role catalogue decides what every role may see")
        roles = await self._runner.run(Roles, catalogue)  # one of a million names takes seconds
        async with self._changing_roles:
            if catalogue != self._roles.catalogue:
                await self._runner.run(self._changes.roles_replaced(self._roles.catalogue, catalogue))
            await self._runner.run(self._disk.write_roles, catalogue)
            self._roles = roles
        log.info("role catalogue replaced", roles=len(catalogue.roles))
        return catalogue

    # --- points ---

    async def upsert(self, name: str, request: UpsertRequest, limited: Limited) -> UpsertResponse:
        """Write all points or none. Acknowledged means that it survives the death of this process."""
        with self._collections.use(name) as opened:
            manifest = opened.manifest
            rules = Rules(manifest, self._roles, limited, self._limits)
            drafts = await self._runner.run(check_points, request.points, rules)
            missing = [number for number, draft in enumerate(drafts) if draft.vector is None]
            vectors = await self._embedder.embed(
                manifest,
                [str(drafts[number].point.text) for number in missing],
                [f"points.{number}.text" for number in missing],
            )
            embedded = dict(zip(missing, vectors, strict=True))
            records = [draft.record(embedded.get(number)) for number, draft in enumerate(drafts)]
            async with opened.writer:
                refuse_changed(opened, manifest)
                await self._check_overwritten(opened, records, limited)
                with self._disk.room(STORED_FACTOR * sum(draft.bytes for draft in drafts)):
                    await self._runner.run(opened.shard.upsert, records)
                self._collections.upkeep.wrote(opened, len(records))
            self._metrics.upserted.inc(len(records))
            return UpsertResponse(
                upserted=len(records), durability=await self._made_durable(opened, request.durability)
            )

    async def _made_durable(self, opened: Opened, wanted: Durability) -> Durability:
        """The engine always writes its log, so `memory` asks for less than there is and is told so."""
        if wanted != "fsync" or not opened.durable:
            return "wal"
        await self._flushes.flushed(opened)
        return "fsync"

    async def _check_overwritten(self, opened: Opened, records: Sequence[Record], limited: Limited) -> None:
        """A limited key may not replace a point of a role that is out of its reach."""
        if limited is None or not opened.spec.gated:
            return
        ids = [record.id for record in records]
        allowed = {self._roles.canonical(role) for role in limited}
        for there in await self._runner.run(opened.shard.get, ids, with_vector=False):
            if self._roles.canonical(there.role) not in allowed:
                raise Forbidden(
                    "the id is taken by a point of a role that this key may not write",
                    code="role_forbidden",
                    param=f"points.{ids.index(there.id)}.id",
                )

    async def get(self, name: str, request: GetRequest, limited: Limited) -> PointsResponse:
        """Points by ids, in their order, the unknown left out; or the first page of a filter."""
        if request.ids is None:
            limit = self._limits.points_max
            page = ScrollRequest(filter=request.filter, role=request.role, limit=limit, with_=request.with_)
            return await self.scroll(name, page, limited)
        with self._collections.use(name) as opened:
            gate = self._gatekeeper.admit(opened, request, limited)
            found = await self._runner.run(
                opened.shard.get, request.ids, with_vector="vector" in request.with_
            )
            # An id may be named by anyone: a point of another role is as good as absent, and no leak.
            visible = [record for record in found if gate.reason_against(record) is None]
            return PointsResponse(points=[stored(record, request.with_) for record in visible])

    async def scroll(self, name: str, request: ScrollRequest, limited: Limited) -> PointsResponse:
        at_most("limit", request.limit, self._limits.points_max, param="limit")
        with self._collections.use(name) as opened:
            gate = self._gatekeeper.admit(opened, request, limited)
            try:
                page = await self._runner.run(
                    opened.shard.scroll,
                    gate.where,
                    limit=request.limit,
                    cursor=request.cursor,
                    with_vector="vector" in request.with_,
                )
            except ValueError as error:
                raise InvalidRequest(
                    "this is no cursor of ours: give the `cursor` of the page before", param="cursor"
                ) from error
            checked = self._gatekeeper.check(gate, [Scored(record, 0.0) for record in page.records])
            points = [stored(hit.record, request.with_) for hit in checked.hits]
            return PointsResponse(points=points, cursor=page.cursor)

    async def count(self, name: str, request: PointSelector, limited: Limited) -> CountResponse:
        with self._collections.use(name) as opened:
            gate = self._gatekeeper.admit(opened, request, limited)
            return CountResponse(count=await self._runner.run(opened.shard.count, gate.where))

    async def delete(self, name: str, request: PointSelector, limited: Limited) -> DeleteResponse:
        """Delete the points that match and that the caller may see; every one is checked like a hit."""
        if request.ids is None and request.filter is None:
            raise InvalidRequest("name what to delete: `ids` or `filter`", param="ids")
        deleted = 0
        async with self._collections.write(name) as opened:
            gate = self._gatekeeper.admit(opened, request, limited)
            cursor: str | None = None
            while True:
                self._disk.check_deleting()
                page = await self._runner.run(
                    opened.shard.scroll,
                    gate.where,
                    limit=self._limits.points_max,
                    cursor=cursor,
                    with_vector=False,
                )
                checked = self._gatekeeper.check(gate, [Scored(record, 0.0) for record in page.records])
                ids = [hit.record.id for hit in checked.hits]
                if ids:
                    await self._runner.run(opened.shard.delete, ids)
                deleted += len(ids)
                cursor = page.cursor
                if cursor is None:
                    break
            self._collections.upkeep.wrote(opened, deleted)
        self._metrics.deleted.inc(deleted)
        return DeleteResponse(deleted=deleted)


# --- plain steps ------------------------------------------------------------------------------


def _refuse_limited(limited: Limited, why: str) -> None:
    if limited is not None:
        raise Forbidden(f"this key is limited to some job roles: {why}", code="role_forbidden")
