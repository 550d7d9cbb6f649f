"""The composition root: the only place where the parts of `chatd` are put together."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypedDict

import httpx

from chatd.backends import OllamaProvider, OpenAICompatibleProvider, OutsideTransport, Provider
from chatd.backends.peers import Judge, Notes
from chatd.engine import Clocks, Dispatcher, Gate, Limits, Loop, Metrics, Refiner, Sender, Spool
from chatd.routes import routes
from chatd.settings import Settings
from services import daemon, http
from services.clients import DistillClient, ValidatorsClient, VectordClient
from services.daemon import Daemon
from services.health import Check
from services.http import PeerClient, Timeouts
from services.tasks import task_set
from services.telemetry import CollectorRegistry


class State(TypedDict):
    settings: Settings
    dispatcher: Dispatcher
    refiner: Refiner
    gate: Gate
    checks: dict[str, Check]


def create_app(
    settings: Settings,
    *,
    providers: Sequence[Provider] | None = None,
    distill: DistillClient | None = None,
    validators: ValidatorsClient | None = None,
    vectord: VectordClient | None = None,
) -> Daemon:
    registry = CollectorRegistry()
    metrics = Metrics(registry)

    @asynccontextmanager
    async def lifespan(_: Daemon) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            spool = _spool(settings, metrics)
            spool.open()
            stack.callback(spool.close)
            keeper = distill or DistillClient(
                await stack.enter_async_context(_peer("distill", settings.distill_url, settings))
            )
            judge = validators or ValidatorsClient(
                await stack.enter_async_context(_peer("validators", settings.validators_url, settings))
            )
            finder = vectord or VectordClient(
                await stack.enter_async_context(_peer("vectord", settings.vectord_url, settings))
            )
            chosen = list(providers if providers is not None else await _providers(settings, stack))
            clocks = Clocks(settings.first_token_timeout_s, settings.idle_timeout_s, settings.total_timeout_s)
            dispatcher = Dispatcher(chosen, spool, metrics, clocks)
            limits = _limits(settings)
            loop = Loop(dispatcher, Judge(judge), limits)
            sender = _sender(settings, spool, keeper)
            tasks = await stack.enter_async_context(task_set())
            tasks.start(sender.run(), name="spool sender")
            yield {
                "settings": settings,
                "dispatcher": dispatcher,
                "refiner": Refiner(loop, Notes(finder), metrics, limits),
                "gate": Gate(loop, metrics),
                "checks": _checks(dispatcher, chosen, keeper),
            }

    return daemon.build("chatd", routes, lifespan, settings, registry=registry)


def _spool(settings: Settings, metrics: Metrics) -> Spool:
    return Spool(
        settings.data / "chatd" / "spool",
        metrics,
        bytes_max=settings.spool_bytes_max,
        segment_bytes_max=settings.spool_segment_bytes_max,
        rejected_bytes_max=settings.rejected_bytes_max,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        tokens_max=settings.iterate_tokens_max,
        total_tokens_max=settings.iterate_total_tokens_max,
        total_s=settings.iterate_timeout_s,
        notes_chars_max=settings.notes_chars_max,
    )


def _sender(settings: Settings, spool: Spool, distill: DistillClient) -> Sender:
    return Sender(
        spool,
        distill,
        batch_bytes_max=settings.spool_batch_bytes_max,
        linger_s=settings.spool_linger_s,
        retry_max_s=settings.spool_retry_max_s,
    )


def _checks(
    dispatcher: Dispatcher, providers: Sequence[Provider], distill: DistillClient
) -> dict[str, Check]:
    """One provider of several may be missing, all may not. Records wait for distill."""
    checks = {provider.name: Check(_listing(provider), required=False) for provider in providers}
    checks["distill"] = Check(distill.ping, required=False)
    checks["providers"] = Check(dispatcher.ping)
    return checks


def _listing(provider: Provider) -> Callable[[], Awaitable[None]]:
    async def probe() -> None:
        await provider.models()

    return probe


async def _providers(settings: Settings, stack: AsyncExitStack) -> list[Provider]:
    ollama = OllamaProvider(
        await stack.enter_async_context(_upstream("ollama", settings.ollama_url, settings)),
        keep_alive=settings.ollama_keep_alive,
        line_bytes_max=settings.line_bytes_max,
        answer_bytes_max=settings.answer_bytes_max,
    )
    if settings.openai_base_url is None:
        return [ollama]
    key = settings.openai_api_key
    openai = OpenAICompatibleProvider(
        "openai",
        await stack.enter_async_context(
            _upstream(
                "openai",
                settings.openai_base_url,
                settings,
                headers={"authorization": f"Bearer {key.get_secret_value()}"} if key else None,
                transport=OutsideTransport(
                    limits=httpx.Limits(max_connections=settings.upstream_concurrency_max)
                ),
            )
        ),
        line_bytes_max=settings.line_bytes_max,
        answer_bytes_max=settings.answer_bytes_max,
    )
    return [ollama, openai]


def _upstream(
    name: str,
    url: str,
    settings: Settings,
    *,
    headers: dict[str, str] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> PeerClient:
    """A client of a provider. Its clocks hold for short calls; generations are timed by the dispatcher."""
    return PeerClient(
        name,
        url,
        timeouts=Timeouts(
            connect_s=settings.connect_timeout_s,
            read_s=settings.peer_timeout_s,
            total_s=settings.peer_timeout_s,
        ),
        limits=http.Limits(
            concurrency_max=settings.upstream_concurrency_max, waiting_max=settings.upstream_waiting_max
        ),
        headers=headers,
        transport=transport,
    )


def _peer(name: str, url: str, settings: Settings) -> PeerClient:
    return PeerClient(
        name, url, timeouts=Timeouts(read_s=settings.peer_timeout_s, total_s=settings.peer_timeout_s)
    )
