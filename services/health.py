"""Readiness: what a daemon needs, whether it is there, and the reason where it is not."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from schemas.base import Model
from services.errors import PlatformError

CHECK_TIMEOUT_S = 1.5


class DependencyState(Model):
    """One dependency as seen now. `required` ones decide whether the daemon is ready."""

    ok: bool
    required: bool
    reason: str | None = None


class ReadyState(Model):
    """`degraded`: serving, with something optional missing."""

    status: Literal["ready", "degraded", "unavailable"]
    dependencies: dict[str, DependencyState]


@dataclass(frozen=True, slots=True)
class Check:
    """A probe that returns when the dependency is there and raises, with a reason, when it is not."""

    probe: Callable[[], Awaitable[None]]
    required: bool = True


async def _run(check: Check) -> DependencyState:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check.probe()
    except TimeoutError:
        return DependencyState(
            ok=False, required=check.required, reason=f"no answer within {CHECK_TIMEOUT_S:g} s"
        )
    except PlatformError as error:  # told to anybody who asks: not what somebody else said
        return DependencyState(ok=False, required=check.required, reason=error.summary)
    except OSError as error:
        return DependencyState(ok=False, required=check.required, reason=str(error))
    return DependencyState(ok=True, required=check.required)


async def readiness(checks: Mapping[str, Check]) -> ReadyState:
    """Run all checks at once, each with its own time limit."""
    states = await asyncio.gather(*(_run(check) for check in checks.values()))
    dependencies = dict(zip(checks, states, strict=True))
    if any(state.required and not state.ok for state in states):
        return ReadyState(status="unavailable", dependencies=dependencies)
    ready = all(state.ok for state in states)
    return ReadyState(status="ready" if ready else "degraded", dependencies=dependencies)
