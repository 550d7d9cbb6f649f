"""The composition root: the only place where the parts of `gateway` are put together."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TypedDict, TypeVar

from starlette.middleware.cors import CORSMiddleware

from gateway.backends import Bulkhead, HttpHop, HttpProber, HttpUpstream, Prober, Rates, Upstream, resolved
from gateway.engine import (
    Board,
    Doorkeeper,
    Fleet,
    Itself,
    Limiter,
    Members,
    Overhead,
    Rendezvous,
    ReplicaMetrics,
    Watch,
    shared_limits,
)
from gateway.engine.members import Connected
from gateway.routes import MESSAGES, MESSAGES_ID, doors, porter, routes
from gateway.settings import Settings
from services import daemon
from services.clients import DistillClient
from services.daemon import Daemon
from services.errors import Unavailable
from services.h1 import H1Client
from services.health import Check, readiness
from services.http import PeerClient, Timeouts
from services.keys import KeyStore
from services.middleware import SecondIdMiddleware
from services.tasks import TaskSet, every, task_set
from services.telemetry import CollectorRegistry

DISTILL_TIMEOUTS = Timeouts(connect_s=0.5, read_s=2.0, total_s=2.0)
"""For a verdict handed over while its caller waits: better told as not kept than waited for."""

Each = TypeVar("Each", bound=Connected)


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
    replica_metrics = ReplicaMetrics(registry)
    rates = _rates(settings, registry)
    charges = TaskSet()
    limits = shared_limits(rates, charges) if rates is not None else Limiter.of
    doorkeeper = Doorkeeper(KeyStore(settings.data), host=settings.host, limits=limits)

    @asynccontextmanager
    async def lifespan(_: Daemon) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            if rates is not None:
                stack.push_async_callback(rates.close)
                stack.push_async_callback(charges.close)
            fleets = await _open_fleets(settings, upstreams, stack)
            rendezvous = await _open_rendezvous(settings, stack)
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
            tasks.start(
                every(settings.keys_reload_interval_s, doorkeeper.reload, name="reload keys"), name="keys"
            )
            watch = Watch([rendezvous, *fleets.values()], timeout_s=settings.watch_timeout_s)
            stack.push_async_callback(watch.close)
            tasks.start(every(settings.watch_interval_s, watch.look, name="look at replicas"), name="watch")
            checks = _checks(doorkeeper, fleets)
            itself = Itself(
                f"http://{settings.host}:{settings.port}",
                metrics=registry.collect,
                ready=partial(readiness, checks),
            )
            standings = {name: fleet.standings for name, fleet in fleets.items()}
            standings["embedd"] = rendezvous.standings
            replica_metrics.watch(standings)
            yield {
                "settings": settings,
                "doorkeeper": doorkeeper,
                "fleets": fleets,
                "rendezvous": rendezvous,
                "distill": distill,
                "overhead": overhead,
                "board": Board(
                    itself,
                    standings,
                    prober or await _open_prober(settings, stack),
                    timeout_s=settings.status_timeout_s,
                ),
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
        is_open=lambda: doorkeeper.open,
        origins=settings.cors_origins,
        direct=partial(doors, body_bytes_max=settings.body_bytes_max, pages=pages),
        porter=partial(porter, per_s_max=settings.refusals_per_s_max, pages=pages),
    )
    app.surround(partial(SecondIdMiddleware, path=MESSAGES, name=MESSAGES_ID))
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


def _rates(settings: Settings, registry: CollectorRegistry) -> Rates | None:
    """The common count of limits, where there is one."""
    if settings.limits_url is None:
        return None
    from gateway.backends.valkey import ValkeyRates  # noqa: PLC0415 - few need it, and it is slow to import

    return ValkeyRates(
        settings.limits_url.get_secret_value(),
        registry,
        timeout_s=settings.limits_timeout_s,
        pause_s=settings.limits_pause_s,
    )


async def _open_fleets(
    settings: Settings, upstreams: Mapping[str, Sequence[Upstream]] | None, stack: AsyncExitStack
) -> dict[str, Fleet]:
    """The replicas of each daemon: those given, or those at its URLs, as they come and go."""
    fleets = {}
    for name, urls in _urls(settings).items():
        fleets[name] = Fleet(
            name,
            (upstreams or {}).get(name, ()),
            ejection_s=settings.ejection_s,
            wait_s=settings.crash_wait_s,
            restart_s=settings.restart_wait_s,
            held_max=settings.upstream_waiting_max,
        )
        stack.push_async_callback(fleets[name].close)
        if upstreams is None:
            connect = partial(_connect, settings, name)
            members = _members(settings, name, urls, connect=connect, use=fleets[name].set_replicas)
            await _keep_up(settings, members, stack)
    return fleets


async def _open_rendezvous(settings: Settings, stack: AsyncExitStack) -> Rendezvous:
    """The replicas of embedd for embeddings, as they come and go."""
    rendezvous = Rendezvous(
        (),
        ejection_s=settings.ejection_s,
        wait_s=settings.crash_wait_s,
        restart_s=settings.restart_wait_s,
        held_max=settings.upstream_waiting_max,
    )
    stack.push_async_callback(rendezvous.close)
    connect = partial(_connect_hop, settings)
    members = _members(settings, "embedd", settings.embedd_urls, connect=connect, use=rendezvous.set_replicas)
    await _keep_up(settings, members, stack)
    return rendezvous


def _members(
    settings: Settings,
    name: str,
    urls: Sequence[str],
    *,
    connect: Callable[[str], Each],
    use: Callable[[list[Each]], None],
) -> Members[Each]:
    return Members(name, urls, resolve=resolved, connect=connect, use=use, drain_s=settings.drain_replica_s)


async def _keep_up(settings: Settings, members: Members[Each], stack: AsyncExitStack) -> None:
    """Look the replicas up, now and ever again."""
    stack.push_async_callback(members.close)
    await members.refresh()
    tasks = await stack.enter_async_context(task_set())
    tasks.start(every(settings.dns_interval_s, members.refresh, name="look up replicas"), name="replicas")


def _client(settings: Settings, url: str) -> H1Client:
    return H1Client(
        url, connect_timeout_s=settings.upstream_connect_timeout_s, headers=settings.internal_headers
    )


def _connect(settings: Settings, name: str, url: str) -> HttpUpstream:
    bulkhead = Bulkhead(
        name,
        concurrency_max=settings.upstream_concurrency_max,
        waiting_max=settings.upstream_waiting_max,
    )
    return HttpUpstream(
        name, _client(settings, url), bulkhead, read_timeout_s=settings.upstream_read_timeout_s
    )


def _connect_hop(settings: Settings, url: str) -> HttpHop:
    return HttpHop(
        _client(settings, url),
        answer_timeout_s=settings.hop_answer_timeout_s,
        part_timeout_s=settings.upstream_read_timeout_s,
        waiting_max=settings.upstream_concurrency_max + settings.upstream_waiting_max,
    )


async def _open_prober(settings: Settings, stack: AsyncExitStack) -> Prober:
    prober = HttpProber(timeout_s=settings.status_timeout_s, headers=settings.internal_headers)
    stack.push_async_callback(prober.close)
    return prober


def _checks(doorkeeper: Doorkeeper, fleets: Mapping[str, Fleet]) -> dict[str, Check]:
    """No daemon is required: with one down, the routes of the others still answer."""

    async def keys() -> None:
        if doorkeeper.problem is not None:
            raise Unavailable(doorkeeper.problem)

    return {"keys": Check(keys, required=False)} | {
        name: Check(fleet.ping, required=False) for name, fleet in fleets.items()
    }
