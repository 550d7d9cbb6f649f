"""The composition root: the only place where the parts of `chatd` are put together."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypedDict

from chatd.backends import Bounds, Provider
from chatd.backends.peers import Judge, Notes
from chatd.engine import Dispatcher, Gate, Ledger, Limits, Loop, Metrics, Refiner, Sender, Spool
from chatd.engine.config import (
    Breaking,
    Config,
    ConfigRefused,
    Keeper,
    Keys,
    OllamaSpec,
    OpenAISpec,
    ProviderSpec,
    Timeouts,
    read,
)
from chatd.engine.config.build import Builder
from chatd.routes import MESSAGES_ID_HEADER, MESSAGES_PATH, chat_doors, routes
from chatd.settings import Settings, environment
from services import daemon, http
from services.audit import AuditLog
from services.clients import DistillClient, ValidatorsClient, VectordClient
from services.daemon import Daemon
from services.health import Check
from services.http import PeerClient
from services.middleware import SecondIdMiddleware
from services.tasks import TaskSet, every, task_set
from services.telemetry import CollectorRegistry

LEDGER_SHARED_EVERY_S: Final = 1.0


class State(TypedDict):
    settings: Settings
    dispatcher: Dispatcher
    refiner: Refiner
    gate: Gate
    visits: TaskSet
    checks: dict[str, Check]


def create_app(
    settings: Settings,
    *,
    providers: Sequence[Provider] | None = None,
    distill: DistillClient | None = None,
    validators: ValidatorsClient | None = None,
    vectord: VectordClient | None = None,
) -> Daemon:
    """The daemon. Exits, with every fault there is, when its configuration cannot be used."""
    if settings.config is not None:
        _ensure_usable(settings.config)
    registry = CollectorRegistry()
    metrics = Metrics(registry)

    @asynccontextmanager
    async def lifespan(app: Daemon) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            spool = _spool(settings, metrics)
            spool.open()
            stack.callback(spool.close)
            peers = await _peers(stack, settings, distill, validators, vectord)
            config = await _config(settings, providers)
            stack.callback(config.close)
            ledger = _ledger(settings)
            stack.callback(ledger.write)
            tasks = await stack.enter_async_context(task_set())
            dispatcher = Dispatcher(
                config,
                spool,
                metrics,
                ledger,
                tasks,
                answer_bytes_max=settings.answer_bytes_max,
                tracer=app.tracer,
            )
            limits = _limits(settings)
            loop = Loop(dispatcher, Judge(peers.validators), limits)
            tasks.start(every(LEDGER_SHARED_EVERY_S, ledger.share, name="spendings"), name="spendings")
            tasks.start(_sender(settings, spool, peers.distill).run(), name="spool sender")
            if settings.config is not None:
                refreshing = every(settings.config_poll_s, config.refresh, name="configuration")
                tasks.start(refreshing, name="configuration")
            yield {
                "settings": settings,
                "dispatcher": dispatcher,
                "refiner": Refiner(loop, Notes(peers.vectord), metrics, limits),
                "gate": Gate(loop, metrics),
                "visits": await stack.enter_async_context(task_set()),
                "checks": _checks(dispatcher, peers.distill, config),
            }

    app = daemon.build(
        "chatd",
        routes,
        lifespan,
        settings,
        registry=registry,
        direct=partial(chat_doors, body_bytes_max=settings.body_bytes_max),
    )
    app.surround(partial(SecondIdMiddleware, path=MESSAGES_PATH, name=MESSAGES_ID_HEADER.encode()))
    return app


class _Peers(NamedTuple):
    distill: DistillClient
    validators: ValidatorsClient
    vectord: VectordClient


async def _peers(
    stack: AsyncExitStack,
    settings: Settings,
    distill: DistillClient | None,
    validators: ValidatorsClient | None,
    vectord: VectordClient | None,
) -> _Peers:
    """Those that are given, and clients of the others at their URLs."""

    async def client(name: str, url: str) -> PeerClient:
        return await stack.enter_async_context(_peer(name, url, settings))

    return _Peers(
        distill or DistillClient(await client("distill", settings.distill_url)),
        validators or ValidatorsClient(await client("validators", settings.validators_url)),
        vectord or VectordClient(await client("vectord", settings.vectord_url)),
    )


def _ledger(settings: Settings) -> Ledger:
    ledger = Ledger(settings.data / "chatd" / "spent")
    ledger.read()
    return ledger


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


def _checks(dispatcher: Dispatcher, distill: DistillClient, config: Keeper) -> dict[str, Check]:
    """One provider of several may be missing, all may not. Records wait for distill."""
    checks = {name: Check(_listing(config, name), required=False) for name in config.current.providers}
    checks["distill"] = Check(distill.ping, required=False)
    checks["config"] = Check(config.check, required=False)
    checks["providers"] = Check(dispatcher.ping)
    return checks


def _listing(config: Keeper, name: str) -> Callable[[], Awaitable[None]]:
    async def probe() -> None:
        if (provider := config.current.providers.get(name)) is not None:  # else it was taken out meanwhile
            await provider.models()

    return probe


def _ensure_usable(path: Path) -> None:
    """Raise `SystemExit` with a message for people when a configuration cannot be used."""
    try:
        read(path, environment)
    except (ConfigRefused, OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"chatd cannot start with the configuration {path}:\n{error}") from None


async def _config(settings: Settings, providers: Sequence[Provider] | None) -> Keeper:
    """What `chatd.toml` says, or else the environment. Providers that are given stand in by their names."""
    given = {provider.name: provider for provider in providers or ()}
    bounds = Bounds(
        connect_s=settings.connect_timeout_s,
        short_s=settings.peer_timeout_s,
        line_bytes_max=settings.line_bytes_max,
        answer_bytes_max=settings.answer_bytes_max,
    )
    build = Builder(bounds, settings.ollama_url)

    def made(name: str, spec: ProviderSpec, keys: Keys) -> Provider:
        return given[name] if name in given else build(name, spec, keys)

    keeper = Keeper(made, AuditLog(settings.data))
    if settings.config is not None:
        await keeper.open(settings.config, environment)
    elif providers is None:
        keeper.hold(*_from_environment(settings))
    else:
        keeper.hold(Config(providers={name: _spec(settings, "openai") for name in given}), {})
    return keeper


def _from_environment(settings: Settings) -> tuple[Config, dict[str, Keys]]:
    specs = {"ollama": _spec(settings, "ollama", keep_alive=settings.ollama_keep_alive)}
    keys: dict[str, Keys] = {}
    if settings.openai_base_url is not None:
        specs["openai"] = _spec(settings, "openai", base_url=settings.openai_base_url)
        if settings.openai_api_key is not None:
            keys["openai"] = (settings.openai_api_key.get_secret_value(),)
    return Config(providers=specs, breaker=Breaking(open_s=1.0, open_max_s=5.0)), keys


def _spec(settings: Settings, kind: Literal["ollama", "openai"], **options: str) -> ProviderSpec:
    """A provider that no file describes, with the clocks and limits of the environment."""
    said = {
        "type": kind,
        "concurrency_max": settings.upstream_concurrency_max,
        "waiting_max": settings.upstream_waiting_max,
        "timeouts": Timeouts(
            connect_s=settings.connect_timeout_s,
            first_token_s=settings.first_token_timeout_s,
            idle_s=settings.idle_timeout_s,
            total_s=settings.total_timeout_s,
        ),
        **options,
    }
    return (OllamaSpec if kind == "ollama" else OpenAISpec).model_validate(said)


def _peer(name: str, url: str, settings: Settings) -> PeerClient:
    return PeerClient(
        name,
        url,
        timeouts=http.Timeouts(read_s=settings.peer_timeout_s, total_s=settings.peer_timeout_s),
        headers=settings.internal_headers,
    )
