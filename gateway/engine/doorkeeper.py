"""Who may ask: decided by the key file, and by nothing else."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from gateway.engine.limits import Limiter
from services.errors import Forbidden, InvalidRequest, PlatformError, Unauthenticated
from services.keys import SCOPES, KeyRecord, Keys, KeyStore, Scope
from services.settings import is_loopback

log = structlog.get_logger(__name__)

LOCAL_PRINCIPAL = "local"
"""Who asks when no key was ever made: somebody on this machine."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what they may: the name of the key, its scopes and its job roles (None: any).

    `gate` is what their chats must pass, as chatd's header has it; empty for none.
    """

    name: str
    scopes: frozenset[Scope]
    roles: tuple[str, ...] | None = None
    gate: str = ""

    def require(self, scopes: Sequence[Scope]) -> None:
        """Raise `Forbidden` unless one of the scopes is held (`admin` holds all). None: any key will do."""
        if scopes and "admin" not in self.scopes and not self.scopes.intersection(scopes):
            raise Forbidden(
                f"this needs the scope {' or '.join(scopes)}; the key {self.name!r} has "
                f"{', '.join(sorted(self.scopes))}",
                code="scope_missing",
            )


LOCAL = Principal(LOCAL_PRINCIPAL, frozenset(SCOPES))

ADMITTED_MAX = 4096
ADMITTED_CHARS_MAX = 128
"""Of a header that is remembered: ours have half of it, and others may write spaces around a key for ever."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """What was decided about one `Authorization` header, until the key expires or the file changes."""

    principal: Principal
    limiter: Limiter
    until: float


class Doorkeeper:
    """Decides by the key file. A file that cannot be read any more leaves the last good one in force."""

    def __init__(
        self, store: KeyStore, *, host: str, limits: Callable[[KeyRecord], Limiter] = Limiter.of
    ) -> None:
        """`limits` makes those of a key that is seen for the first time."""
        self._store = store
        self._limits = limits
        self._signature = store.signature()
        self._keys = store.load()
        self._limiters: dict[str, Limiter] = {}
        self._admitted: dict[str, Admitted] = {}
        self.problem: str | None = None
        if not self._keys and not is_loopback(host):
            raise InvalidRequest(
                f"no keys exist, so only this machine may be served; {host} is reachable from others. "
                "Make one with `stillhouse keys create --name NAME`, or listen on 127.0.0.1",
                code="no_keys",
            )

    @property
    def open(self) -> bool:
        """Whether no key was ever made: then everyone on this machine may do everything."""
        return not self._keys

    async def reload(self) -> None:
        """Look at the file again if it changed. Keeps the last good keys when it is broken."""
        try:
            signature = self._store.signature()
            if signature == self._signature and self.problem is None:
                return
            keys = await asyncio.to_thread(self._store.load)  # thousands of keys take a while to read
        except (PlatformError, OSError) as error:
            self._stay(str(error))
            return
        if not keys and self._keys:
            self._stay("the key file is gone; the last one stays in force until the gateway restarts")
            return
        self._signature, self._keys, self.problem = signature, keys, None
        self._admitted.clear()
        log.info("keys loaded", keys=len(keys))

    def _stay(self, problem: str) -> None:
        """Go by the keys that are known, and try again each time: what failed now may work the next time."""
        if problem != self.problem:
            log.error("the last good keys stay in force", reason=problem)
        self.problem = problem

    def identify(self, authorization: str | None) -> tuple[Principal, Limiter | None]:
        """Who asks, and their limits (None: none). Raises `Unauthenticated` for a missing or bad key."""
        if self.open:
            return LOCAL, None
        if (known := self._admitted.get(authorization or "")) is not None and time.time() < known.until:
            return known.principal, known.limiter
        record = self._record(self._keys, authorization)
        limiter = self._limiters.get(record.id)
        if limiter is None:
            limiter = self._limiters[record.id] = self._limits(record)
        principal = Principal(record.name, frozenset(record.scopes), record.roles, record.gate_header)
        if authorization is None or len(authorization) > ADMITTED_CHARS_MAX:
            return principal, limiter
        if len(self._admitted) >= ADMITTED_MAX:
            self._admitted.clear()
        until = record.expires_at.timestamp() if record.expires_at is not None else math.inf
        self._admitted[authorization] = Admitted(principal, limiter, until)
        return principal, limiter

    @staticmethod
    def _record(keys: Keys, authorization: str | None) -> KeyRecord:
        scheme, _, presented = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not presented.strip():
            raise Unauthenticated("a key is needed: Authorization: Bearer sh-…", code="missing_api_key")
        record = keys.find(presented.strip())
        if record is None:
            raise Unauthenticated("this key is not known")
        state = record.state_at(datetime.now(UTC))
        if state != "active":
            raise Unauthenticated(f"this key is {state}", code=f"{state}_api_key")
        return record
