"""The composition root: the only place where the parts of `gateway` are put together."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TypedDict

from starlette.middleware.cors import CORSMiddleware

from gateway.backends import Bulkhead, HttpHop, HttpProber, HttpUpstream, Prober, Upstream, resolved
from gateway.engine import Board, Doorkeeper, Fleet, Itself, Members, Overhead, Rendezvous
from gateway.routes import doors, porter, routes
from gateway.settings import Settings
from services import daemon
from services.clients import DistillClient
from services.daemon import Daemon
from services.errors import Unavailable
from services.h1 import H1Client
from services.health import Check, readiness
from services.http import PeerClient, Timeouts
from services.keys import KeyStore
from services.tasks import every, task_set
from services.telemetry import CollectorRegistry, render

DISTILL_TIMEOUTS = Timeouts(connect_s=0.5, read_s=2.0, total_s=2.0)
"""For a verdict handed over while its caller waits: better told as not kept than waited for."""

PROBE_TIMEOUT_S = 1.0


class State(TypedDict):
    settings: Settings
    doorkeeper: Doorkeeper
    fleets: dict[str, Fleet]
    rendezvous: Rendezvous
    distill: DistillClient
    overhead: Overhead
    board: Board
    checks: dict[str, Check]


def create_app(
    settings: Settings,
    *,
    upstreams: Mapping[str, Sequence[Upstream]] | None = None,
    prober: Prober | None = None,
) -> Daemon:
    """Raises `PlatformError` when it must not start: no keys on an open address, or a broken key file."""
    registry = CollectorRegistry()
    overhead = Overhead(registry)
    doorkeeper = Doorkeeper(KeyStore(settings.data), host=settings.host)

    @asynccontextmanager
    async def lifespan(_: Daemon) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            replicas = upstreams or await _open_replicas(settings, stack)
            fleets = {
                name: Fleet(name, members, ejection_s=settings.ejection_s)
                for name, members in replicas.items()
            }
            for fleet in fleets.values():
                stack.push_async_callback(fleet.close)
            rendezvous = Rendezvous((), ejection_s=settings.ejection_s)
            stack.push_async_callback(rendezvous.close)
            await _open_members(settings, rendezvous, stack)
            distill = await stack.enter_async_context(
                DistillClient(
                    PeerClient(
                        "distill",
                        settings.distill_urls[0],
                        timeouts=DISTILL_TIMEOUTS,
                        headers=settings.internal_headers,
                    )
                )
            )
            tasks = await stack.enter_async_context(task_set())

            async def reload_keys() -> None:
                doorkeeper.reload()

            tasks.start(every(settings.keys_reload_interval_s, reload_keys, name="reload keys"), name="keys")
            checks = _checks(doorkeeper, fleets)
            itself = Itself(
                f"http://{settings.host}:{settings.port}",
                metrics=lambda: render(registry).decode(),
                ready=partial(readiness, checks),
            )
            standings = {name: fleet.standings for name, fleet in fleets.items()}
            standings["embedd"] = rendezvous.standings
            yield {
                "settings": settings,
                "doorkeeper": doorkeeper,
                "fleets": fleets,
                "rendezvous": rendezvous,
                "distill": distill,
                "overhead": overhead,
                "board": Board(itself, standings, prober or await _open_prober(settings, stack)),
                "checks": checks,
            }

    pages = bool(settings.cors_origins)
    app = daemon.build(
        "gateway",
        routes,
        lifespan,
        settings,
        registry=registry,
        trusted=False,
        direct=partial(doors, body_bytes_max=settings.body_bytes_max, pages=pages),
        porter=partial(porter, pages=pages),
    )
    if pages:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    return app


def _urls(settings: Settings) -> dict[str, tuple[str, ...]]:
    return {
        "embedd": settings.embedd_urls,
        "vectord": settings.vectord_urls,
        "chatd": settings.chatd_urls,
        "distill": settings.distill_urls,
        "validators": settings.validators_urls,
    }


async def _open_replicas(settings: Settings, stack: AsyncExitStack) -> dict[str, list[Upstream]]:
    replicas: dict[str, list[Upstream]] = {}
    for name, urls in _urls(settings).items():
        replicas[name] = [await _open_replica(name, url, settings, stack) for url in urls]
    return replicas


async def _open_replica(name: str, url: str, settings: Settings, stack: AsyncExitStack) -> Upstream:
    client = await stack.enter_async_context(
        H1Client(
            url,
            connect_timeout_s=settings.upstream_connect_timeout_s,
            headers=settings.internal_headers,
        )
    )
    bulkhead = Bulkhead(
        name,
        concurrency_max=settings.upstream_concurrency_max,
        waiting_max=settings.upstream_waiting_max,
    )
    return HttpUpstream(name, client, bulkhead, read_timeout_s=settings.upstream_read_timeout_s)


async def _open_prober(settings: Settings, stack: AsyncExitStack) -> Prober:
    prober = HttpProber(timeout_s=PROBE_TIMEOUT_S, headers=settings.internal_headers)
    stack.push_async_callback(prober.close)
    return prober


async def _open_members(settings: Settings, rendezvous: Rendezvous, stack: AsyncExitStack) -> None:
    """Connect the rendezvous to embedd's replicas, and keep looking up who they are."""

    def connect(url: str) -> HttpHop:
        return HttpHop(
            H1Client(
                url,
                connect_timeout_s=settings.upstream_connect_timeout_s,
                headers=settings.internal_headers,
            ),
            answer_timeout_s=settings.hop_answer_timeout_s,
            part_timeout_s=settings.upstream_read_timeout_s,
            waiting_max=settings.upstream_concurrency_max + settings.upstream_waiting_max,
        )

    members = Members(settings.embedd_urls, rendezvous, resolve=resolved, connect=connect)
    stack.push_async_callback(members.close)
    await members.refresh()
    tasks = await stack.enter_async_context(task_set())
    tasks.start(every(settings.dns_interval_s, members.refresh, name="look up replicas"), name="replicas")


def _checks(doorkeeper: Doorkeeper, fleets: Mapping[str, Fleet]) -> dict[str, Check]:
    """No daemon is required: with one down, the routes of the others still answer."""

    async def keys() -> None:
        if doorkeeper.problem is not None:
            raise Unavailable(doorkeeper.problem)

    return {"keys": Check(keys, required=False)} | {
        name: Check(fleet.ping, required=False) for name, fleet in fleets.items()
    }
