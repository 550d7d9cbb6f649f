"""The work of `gateway`: who may ask, how often, and which replica answers."""

import ipaddress
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from gateway.backends import NotReached, Outgoing, Reply, Upstream
from services.errors import Forbidden, InvalidRequest, Overloaded, PlatformError, Unauthenticated, Unavailable
from services.keys import SCOPES, KeyRecord, Keys, KeyStore, Scope

log = structlog.get_logger(__name__)

TRIES_MIN = 2

LOCAL_PRINCIPAL = "local"
"""Who asks when no key was ever made: somebody on this machine."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what they may: the name of the key, its scopes and its job roles (None: any)."""

    name: str
    scopes: frozenset[Scope]
    roles: tuple[str, ...] | None = None

    def require(self, scopes: Sequence[Scope]) -> None:
        """Raise `Forbidden` unless one of the scopes is held. No scopes: any key will do."""
        if scopes and not self.scopes.intersection(scopes):
            raise Forbidden(
                f"this needs the scope {' or '.join(scopes)}; the key {self.name!r} has "
                f"{', '.join(sorted(self.scopes))}",
                code="scope_missing",
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# --- limits -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Bucket:
    """So many a minute, refilled evenly; all of them may be used at once.

    What is only known afterwards (tokens) is charged afterwards and may overdraw; then the next one waits.
    """

    per_minute: int
    clock: Callable[[], float] = time.monotonic
    _level: float = field(init=False)
    _seen: float = field(init=False)

    def __post_init__(self) -> None:
        self._level = float(self.per_minute)
        self._seen = self.clock()

    def _refill(self) -> None:
        now = self.clock()
        self._level = min(self.per_minute, self._level + (now - self._seen) * self.per_minute / 60)
        self._seen = now

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` can be taken; 0 when it can be now."""
        self._refill()
        return max(0.0, (amount - self._level) * 60 / self.per_minute)

    def take(self, amount: float) -> None:
        self._refill()
        self._level -= amount

    @property
    def remaining(self) -> int:
        self._refill()
        return max(0, int(self._level))


class Limiter:
    """The buckets of one key. A refused request takes nothing."""

    def __init__(self, record: KeyRecord) -> None:
        self.requests = Bucket(record.rpm) if record.rpm else None
        self.tokens = Bucket(record.tpm) if record.tpm else None

    def admit(self) -> None:
        """Take one request. Raises `Overloaded` with the time to wait."""
        for bucket, what in ((self.requests, "requests"), (self.tokens, "tokens")):
            if bucket is not None and (wait := bucket.wait_s(1)) > 0:
                raise Overloaded(
                    f"this key may use {bucket.per_minute} {what} a minute", retry_after_s=max(1.0, wait)
                )
        if self.requests is not None:
            self.requests.take(1)

    def charge(self, tokens: int) -> None:
        if self.tokens is not None:
            self.tokens.take(tokens)

    def headers(self) -> dict[str, str]:
        """What is left, in the headers that OpenAI's clients know."""
        found: dict[str, str] = {}
        for bucket, what in ((self.requests, "requests"), (self.tokens, "tokens")):
            if bucket is not None:
                found[f"x-ratelimit-limit-{what}"] = str(bucket.per_minute)
                found[f"x-ratelimit-remaining-{what}"] = str(bucket.remaining)
        return found


# --- admission --------------------------------------------------------------------------------


class Doorkeeper:
    """Decides by the key file. A file that cannot be read any more leaves the last good one in force."""

    def __init__(self, store: KeyStore, *, host: str) -> None:
        self._store = store
        self._signature = store.signature()
        self._keys = store.load()
        self._limiters: dict[str, Limiter] = {}
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

    def reload(self) -> None:
        """Look at the file again if it changed. Keeps the last good keys when it is broken."""
        signature = self._store.signature()
        if signature == self._signature:
            return
        try:
            keys = self._store.load()
        except PlatformError as error:
            self.problem = error.message
            log.exception("the key file is broken; the last good one stays in force")
            return
        if not keys and self._keys:
            self.problem = "the key file is gone; the last one stays in force until the gateway restarts"
            log.error("the key file is gone; the last one stays in force")
            return
        self._signature, self._keys, self.problem = signature, keys, None
        log.info("keys loaded", keys=len(keys))

    def identify(self, authorization: str | None) -> tuple[Principal, Limiter | None]:
        """Who asks, and their limits (None: none). Raises `Unauthenticated` for a missing or bad key."""
        if self.open:
            return Principal(LOCAL_PRINCIPAL, frozenset(SCOPES)), None
        record = self._record(self._keys, authorization)
        limiter = self._limiters.get(record.id)
        if limiter is None:
            limiter = self._limiters[record.id] = Limiter(record)
        return Principal(record.name, frozenset(record.scopes), record.roles), limiter

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


# --- replicas ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Replica:
    """One process of a daemon, with what is under way to it and until when it is passed over."""

    upstream: Upstream
    in_flight: int = 0
    ejected_until: float = 0.0


class Fleet:
    """The replicas of one daemon. The one with the fewest requests under way is asked."""

    def __init__(self, daemon: str, upstreams: Sequence[Upstream], *, ejection_s: float) -> None:
        self.daemon = daemon
        self._replicas = [Replica(upstream) for upstream in upstreams]
        self._ejection_s = ejection_s

    def _choose(self, tried: Sequence[Replica], outgoing: Outgoing) -> Replica | None:
        """The next replica to ask, or None. A request that may be repeated is sent at least twice."""
        left = [replica for replica in self._replicas if replica not in tried]
        if not left and outgoing.repeatable and len(tried) < TRIES_MIN:
            left = self._replicas
        now = time.monotonic()
        # With every replica ejected the choice is between failing and trying: try.
        healthy = [replica for replica in left if replica.ejected_until <= now] or left
        return min(healthy, key=lambda replica: replica.in_flight, default=None)

    @asynccontextmanager
    async def exchange(self, outgoing: Outgoing) -> AsyncIterator[Reply]:
        """Send a request to a replica and hold its reply.

        A replica that cannot be reached is passed over for a while and the next one asked. One that breaks
        off before answering may have done the work, so only a request that may be repeated goes on to the
        next. Raises `Unavailable` when nobody answered.
        """
        tried: list[Replica] = []
        failure = Unavailable(f"{self.daemon} has no replica", code=f"{self.daemon}_down")
        while (replica := self._choose(tried, outgoing)) is not None:
            tried.append(replica)
            replica.in_flight += 1
            try:
                reply = await replica.upstream.open(outgoing)
                replica.ejected_until = 0.0
                try:
                    yield reply
                finally:
                    await reply.aclose()
                return
            except NotReached as error:
                replica.ejected_until = time.monotonic() + self._ejection_s
                failure = error
                if error.maybe_done and not outgoing.repeatable:
                    break
            finally:
                replica.in_flight -= 1
        raise failure

    async def ping(self) -> None:
        """Raise, with the reason, unless one replica answers."""
        reasons: list[str] = []
        for replica in self._replicas:
            try:
                await replica.upstream.ping()
            except PlatformError as error:
                reasons.append(error.message)
            else:
                return
        raise Unavailable("; ".join(reasons))
