"""The composition root: the only place where the parts of vectord are put together."""

import contextlib
from collections.abc import AsyncIterator
from typing import TypedDict

from services import daemon
from services.audit import AuditLog
from services.clients import EmbeddClient
from services.daemon import Daemon
from services.health import Check
from services.http import PeerClient
from services.tasks import every, task_set
from services.telemetry import CollectorRegistry
from vectord.backends import Engines, Store, WorkerStore
from vectord.backends.engines import LanceOptions, Outside, QdrantOptions, lance_store, qdrant_store
from vectord.engine import (
    Canaries,
    Changes,
    Collections,
    Disk,
    Embedder,
    Engine,
    Exports,
    Flushes,
    Limits,
    Metrics,
    Moves,
    Recall,
    Reembeds,
    Runner,
    Shards,
    Snapshots,
    Upkeep,
)
from vectord.routes import SearchDoor, routes
from vectord.settings import Settings


class State(TypedDict):
    engine: Engine
    limits: Limits
    snapshots: Snapshots
    exports: Exports
    reembeds: Reembeds
    checks: dict[str, Check]


def create_app(
    settings: Settings,
    *,
    store: Store | None = None,
    outside: Outside | None = None,
    embedd: EmbeddClient | None = None,
) -> Daemon:
    registry = CollectorRegistry()
    metrics = Metrics(registry)

    @contextlib.asynccontextmanager
    async def lifespan(_: Daemon) -> AsyncIterator[State]:
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                embedd
                or EmbeddClient(PeerClient("embedd", settings.embedd_url, headers=settings.internal_headers))
            )
            disk = Disk(settings.data / "vectors", free_bytes_min=settings.disk_free_bytes_min)
            stack.enter_context(disk.locked())
            runner = Runner(threads=settings.threads, waiting_max=settings.waiting_max)
            metrics.waiting.set_function(lambda: runner.waiting)
            limits = _limits(settings)
            embedder = Embedder(client, batch_max=limits.embed_batch_max)
            tasks = await stack.enter_async_context(task_set())
            changes = Changes(AuditLog(settings.data))
            shards = Shards(disk, _engines(settings, store, outside or {}, stack))
            collections = Collections(
                disk,
                shards,
                embedder,
                runner=runner,
                limits=limits,
                metrics=metrics,
                upkeep=Upkeep(disk, runner=runner, limits=limits, metrics=metrics, tasks=tasks),
                changes=changes,
            )
            stack.callback(collections.close)
            stack.callback(runner.close)  # before the shards are closed: calls under way use them
            recall = Recall(
                share=settings.recall_share,
                interval_s=settings.recall_interval_s,
                runner=runner,
                metrics=metrics,
                tasks=tasks,
            )
            moves = Moves(
                collections, shards, disk, runner=runner, limits=limits, tasks=tasks, changes=changes
            )
            engine = Engine(
                collections,
                moves,
                disk,
                embedder,
                runner=runner,
                limits=limits,
                metrics=metrics,
                recall=recall,
                changes=changes,
                flushes=Flushes(runner, tasks),
            )
            await engine.start()
            reopening = every(settings.reopen_interval_s, collections.reopen, name="reopening")
            tasks.start(reopening, name="reopening")
            snapshots = Snapshots(disk, collections, runner=runner, limits=limits)
            await snapshots.start()
            canaries = Canaries(
                engine, collections, runner=runner, metrics=metrics, probes_max=settings.canary_probes_max
            )
            tasks.start(every(settings.canary_interval_s, canaries.round, name="canaries"), name="canaries")
            yield {
                "engine": engine,
                "limits": limits,
                "snapshots": snapshots,
                "exports": Exports(collections, runner=runner, limits=limits),
                "reembeds": Reembeds(collections, moves, embedder, limits=limits, tasks=tasks),
                "checks": {
                    "storage": Check(engine.check_storage),
                    "disk": Check(engine.check_disk, required=False),  # what is there can be read
                    "gate": Check(canaries.check),
                    "index": Check(canaries.check_index, required=False),
                    "embedd": Check(client.ping, required=False),  # vectors of one's own need no model
                },
            }

    return daemon.build("vectord", routes, lifespan, settings, registry=registry, direct=SearchDoor)


def _workers(settings: Settings, stack: contextlib.AsyncExitStack) -> WorkerStore:
    workers = WorkerStore(processes=settings.workers, call_timeout_s=settings.store_timeout_s)
    stack.callback(workers.close)
    return workers


def _engines(
    settings: Settings, edge: Store | None, outside: Outside, stack: contextlib.AsyncExitStack
) -> Engines:
    lance = LanceOptions(
        url=settings.lance_url,
        index=settings.lance_index,
        nprobes=settings.lance_nprobes,
        refine=settings.lance_refine,
        flat_rows_max=settings.lance_flat_rows_max,
        cache_bytes_max=settings.lance_cache_bytes_max,
        versions_keep_s=settings.lance_versions_keep_s,
    )
    key = settings.qdrant_api_key
    qdrant = QdrantOptions(
        url=settings.qdrant_url,
        api_key=key.get_secret_value() if key is not None else None,
        timeout_s=settings.qdrant_timeout_s,
        prefix=settings.qdrant_prefix,
        shards=settings.qdrant_shards,
        replicas=settings.qdrant_replicas,
    )
    engines = Engines(
        edge or _workers(settings, stack),
        {"lance": lambda: lance_store(lance), "qdrant": lambda: qdrant_store(qdrant), **outside},
    )
    stack.callback(engines.close)
    return engines


def _limits(settings: Settings) -> Limits:
    return Limits(
        collections_max=settings.collections_max,
        points_max=settings.points_max,
        k_max=settings.k_max,
        retrieve_k_max=settings.retrieve_k_max,
        dimension_max=settings.dimension_max,
        text_bytes_max=settings.text_bytes_max,
        payload_bytes_max=settings.payload_bytes_max,
        embed_batch_max=settings.embed_batch_max,
        optimize_after_points=settings.optimize_after_points,
        optimize_after_commits=settings.lance_commits_max,
        rebuild_changes_max=settings.rebuild_changes_max,
        rebuild_recall_min=settings.rebuild_recall_min,
        edge_rows_max=settings.edge_rows_max,
        edge_memory_bytes_max=settings.edge_memory_bytes_max,
        lance_rows_max=settings.lance_rows_max,
        search_ef=settings.search_ef,
        benchmark_timeout_s=settings.benchmark_timeout_s,
        batch_max=settings.batch_max,
        facet_points_max=settings.facet_points_max,
        snapshots_max=settings.snapshots_max,
        snapshot_bytes_max=settings.snapshot_bytes_max,
    )
