"""The composition root: the only place where the parts of `validators` are put together."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypedDict

from services import daemon
from services.audit import AuditLog
from services.daemon import Daemon
from services.errors import Unavailable
from services.health import Check
from services.tasks import every, task_set
from services.telemetry import CollectorRegistry
from validators.backends import FixedRoster, Helper, RosterFile, RosterSource
from validators.engine import (
    BrokenPolicy,
    EmailValidator,
    Engine,
    FillValidator,
    JsonSchemaValidator,
    Keeper,
    Metrics,
    PluggedValidator,
    Plugin,
    Policy,
    PolicyFile,
    Rules,
    SmsValidator,
    Threads,
    Turns,
    installed,
)
from validators.routes import ValidateDoor, routes
from validators.settings import Settings

SHIPPED_POLICY: Final = Path(__file__).with_name("policy.toml")
KINDS: Final = (FillValidator.kind, EmailValidator.kind, SmsValidator.kind, JsonSchemaValidator.kind)


class State(TypedDict):
    settings: Settings
    engine: Engine
    checks: dict[str, Check]


def create_app(settings: Settings, *, source: RosterSource | None = None) -> Daemon:
    """The daemon. Exits, with the reason, when the policy cannot be used; raises `UnusableValidator` for an
    installed validator that cannot.
    """
    registry = CollectorRegistry()
    policy = load_policy(settings, installed(KINDS))
    metrics = Metrics(registry)

    @asynccontextmanager
    async def lifespan(_: Daemon) -> AsyncIterator[State]:
        threads = Threads(threads=settings.threads, waiting_max=settings.waiting_max)
        helper = Helper(timeout_s=settings.roster_timeout_s)
        keeper = Keeper(policy, source or _roster(settings, helper), metrics)
        async with task_set() as tasks:
            await asyncio.to_thread(keeper.look)
            tasks.start(
                every(settings.roster_poll_s, lambda: asyncio.to_thread(keeper.look), name="files"),
                name="files",
            )
            engine = Engine(
                keeper,
                threads,
                Turns(batches_max=settings.batches_max),
                metrics,
                artifact_bytes_max=settings.artifact_bytes_max,
            )
            try:
                yield {"settings": settings, "engine": engine, "checks": _checks(keeper)}
            finally:
                helper.close()
                threads.close()

    return daemon.build("validators", routes, lifespan, settings, registry=registry, direct=ValidateDoor)


def load_policy(settings: Settings, plugins: Sequence[Plugin]) -> PolicyFile:
    """Read the policy. Raises `SystemExit` with a message for people when it cannot be used."""
    path = settings.policy or SHIPPED_POLICY
    others = {code: severity for each in plugins for code, severity in each.severities.items()}

    def build(data: bytes) -> Rules:
        policy = Policy(data, others)
        return Rules(policy, _own(settings, policy), [PluggedValidator(each, policy) for each in plugins])

    try:
        return PolicyFile(path, build, AuditLog(settings.data))
    except (OSError, BrokenPolicy) as error:
        raise SystemExit(f"validators cannot start with the policy {path}: {error}") from error


def _own(
    settings: Settings, policy: Policy
) -> tuple[FillValidator, EmailValidator, SmsValidator, JsonSchemaValidator]:
    return (
        FillValidator(policy, candidates_max=settings.candidates_max),
        EmailValidator(policy),
        SmsValidator(policy),
        JsonSchemaValidator(
            policy,
            schema_bytes_max=settings.schema_bytes_max,
            expansion_max=settings.schema_expansion_max,
            findings_max=settings.findings_max,
        ),
    )


def _roster(settings: Settings, helper: Helper) -> RosterSource:
    if settings.roster is None:
        return FixedRoster(problem="none is configured")
    return RosterFile(settings.roster, helper, bytes_max=settings.roster_bytes_max)


def _checks(keeper: Keeper) -> dict[str, Check]:
    """None is required: other kinds serve without a roster, and the last good of each file serves on."""

    async def roster() -> None:
        if (problem := keeper.current.roster_problem) is not None:
            raise Unavailable(f"{problem}; set VALIDATORS_ROSTER to a Parquet file of the workers")

    async def policy() -> None:
        if (problem := keeper.current.policy_problem) is not None:
            raise Unavailable(
                f"{problem}; the one before it, {keeper.current.rules.policy.version}, serves on"
            )

    return {"roster": Check(roster, required=False), "policy": Check(policy, required=False)}
