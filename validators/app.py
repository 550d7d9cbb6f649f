"""The composition root: the only place where the parts of `validators` are put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypedDict

from services import daemon
from services.daemon import Daemon
from services.errors import Unavailable
from services.health import Check
from services.tasks import every, task_set
from services.telemetry import CollectorRegistry
from validators.backends import FixedRoster, RosterFile, RosterSource
from validators.engine import (
    BrokenPolicy,
    EmailValidator,
    Engine,
    FillValidator,
    JsonSchemaValidator,
    Metrics,
    Policy,
    SmsValidator,
    Threads,
    Validator,
)
from validators.routes import routes
from validators.settings import Settings

SHIPPED_POLICY: Final = Path(__file__).with_name("policy.toml")


class State(TypedDict):
    settings: Settings
    engine: Engine
    checks: dict[str, Check]


def create_app(settings: Settings, *, source: RosterSource | None = None) -> Daemon:
    """The daemon. Exits, with the reason, when the policy cannot be used."""
    registry = CollectorRegistry()
    policy = load_policy(settings.policy or SHIPPED_POLICY)
    metrics = Metrics(registry)

    @asynccontextmanager
    async def lifespan(_: Daemon) -> AsyncIterator[State]:
        threads = Threads(threads=settings.threads, waiting_max=settings.waiting_max)
        async with task_set() as tasks:
            roster = source or _roster(settings, policy)
            if isinstance(roster, RosterFile):
                await _look(roster, metrics)
                tasks.start(
                    every(settings.roster_poll_s, lambda: _look(roster, metrics), name="roster"),
                    name="roster",
                )
            metrics.roster(roster)
            engine = Engine(
                _validators(settings, policy),
                roster,
                threads,
                metrics,
                policy=policy,
                artifact_bytes_max=settings.artifact_bytes_max,
            )
            try:
                yield {"settings": settings, "engine": engine, "checks": {"roster": _check(roster)}}
            finally:
                threads.close()

    return daemon.build("validators", routes, lifespan, settings, registry=registry)


def load_policy(path: Path) -> Policy:
    """Read a policy. Raises `SystemExit` with a message for people when it cannot be used."""
    try:
        return Policy(path.read_bytes())
    except (OSError, BrokenPolicy) as error:
        raise SystemExit(f"validators cannot start with the policy {path}: {error}") from error


def _validators(settings: Settings, policy: Policy) -> list[Validator]:
    return [
        FillValidator(policy, candidates_max=settings.candidates_max),
        EmailValidator(policy),
        SmsValidator(policy),
        JsonSchemaValidator(
            policy,
            schema_bytes_max=settings.schema_bytes_max,
            expansion_max=settings.schema_expansion_max,
            findings_max=settings.findings_max,
        ),
    ]


def _roster(settings: Settings, policy: Policy) -> RosterSource:
    if settings.roster is None:
        return FixedRoster(problem="none is configured")
    return RosterFile(settings.roster, policy, bytes_max=settings.roster_bytes_max)


async def _look(roster: RosterFile, metrics: Metrics) -> None:
    await asyncio.to_thread(roster.look)
    metrics.roster(roster)


def _check(roster: RosterSource) -> Check:
    """Not required: other kinds serve without a roster, and the last good one serves on."""

    async def probe() -> None:
        if roster.problem is not None:
            raise Unavailable(f"{roster.problem}; set VALIDATORS_ROSTER to a Parquet file of the workers")

    return Check(probe, required=False)
