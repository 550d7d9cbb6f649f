"""The one way to call another daemon: pooled, bounded in time and number, with our errors out of it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from schemas.errors import ErrorEnvelope
from services import context
from services.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    PlatformError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from services.middleware import DRAINING

Headers = Mapping[str, str] | Sequence[tuple[bytes, bytes]]

Answer = TypeVar("Answer", bound=BaseModel)

BY_STATUS: Final[Mapping[int, type[PlatformError]]] = {
    kind.status: kind
    for kind in (
        InvalidRequest,
        Unauthenticated,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        Conflict,
        TooLarge,
        Overloaded,
        UpstreamError,
        Unavailable,
        UpstreamTimeout,
    )
}


DRAINING_HEADER: Final = DRAINING[0].decode()
ASK_AGAIN_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect, between two reads, for the whole call, and for a peer that restarts to be back.

    Short enough for the last that who asked us, through the gateway, is told within two seconds.
    """

    connect_s: float = 1.0
    read_s: float = 30.0
    total_s: float = 60.0
    restart_s: float = 1.5


@dataclass(frozen=True, slots=True)
class Limits:
    """How many calls may be under way at once, and how many may wait for a place."""

    concurrency_max: int = 64
    waiting_max: int = 512


def raise_for_envelope(peer: str, response: httpx.Response) -> None:
    """Raise what a peer daemon's failure means to our own caller; do nothing on success."""
    if response.is_success:
        return
    try:
        error = ErrorEnvelope.model_validate_json(response.content).error
    except ValidationError:
        raise UpstreamError(f"{peer} answered {response.status_code} with no error envelope") from None
    kind = BY_STATUS.get(response.status_code, UpstreamError)
    retry_after = response.headers.get("retry-after", "")
    raise kind(
        error.message,
        code=error.code,
        param=error.param,
        retry_after_s=float(retry_after) if retry_after.isdigit() else None,
        summary=f"{peer} answered {response.status_code}",
    )


def answer_of(peer: str, response: httpx.Response, answer: type[Answer]) -> Answer:
    """What a peer daemon answered, or what its failure means to our own caller."""
    if response.status_code == Unauthenticated.status:  # not about our caller: it is us whom the peer refuses
        raise UpstreamError(
            f"{peer} refuses this daemon; give both the same STILLHOUSE_INTERNAL_TOKEN", code="internal_token"
        )
    raise_for_envelope(peer, response)
    try:
        return answer.model_validate_json(response.content)
    except ValidationError as error:
        raise UpstreamError(f"{peer} answered something else than {answer.__name__}") from error


def _turned_away(response: httpx.Response) -> bool:
    """Whether a peer that is stopping says that it did nothing."""
    return response.status_code == Unavailable.status and DRAINING_HEADER in response.headers


class PeerClient:
    """Calls one peer by name. Opened and closed by the daemon's lifespan.

    Idempotent calls are tried twice when the connection breaks. A call that did not begin (nobody listens, or
    the peer is stopping and says so) is made again for as long as a restart may take since the peer was last
    there; once that is over, calls fail at once until it is back. Nothing else is repeated. A peer that is
    down raises `Unavailable` naming it, one that is slow `UpstreamTimeout`, and one that refuses raises
    its own error again.
    """

    def __init__(
        self,
        peer: str,
        base_url: str,
        *,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.peer = peer
        self.timeouts = timeouts or Timeouts()
        self._limits = limits or Limits()
        self._slots = asyncio.Semaphore(self._limits.concurrency_max)
        self._waiting = 0
        self._gone_at: float | None = None
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers=headers,
            timeout=httpx.Timeout(self.timeouts.read_s, connect=self.timeouts.connect_s, pool=None),
            limits=httpx.Limits(
                max_connections=self._limits.concurrency_max,
                keepalive_expiry=30.0,
                max_keepalive_connections=None,
            ),
            transport=transport,
            follow_redirects=False,
            trust_env=False,  # no proxy from the environment between our own daemons
        )

    @property
    def base_url(self) -> str:
        return str(self._client.base_url).rstrip("/")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._slots.locked() and self._waiting >= self._limits.waiting_max:
            raise Overloaded(
                f"{self._waiting} calls wait for {self.peer}; at most {self._limits.waiting_max} may"
            )
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unavailable(
                f"{self.peer} does not answer at {self.base_url}", code=f"{self.peer}_down"
            ) from error
        except (httpx.TimeoutException, TimeoutError) as error:
            raise UpstreamTimeout(
                f"{self.peer} did not answer in time"
                f" (read {self.timeouts.read_s:g} s, total {self.timeouts.total_s:g} s)"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UpstreamError(f"the connection to {self.peer} broke: {type(error).__name__}") from error

    def _request(self, method: str, path: str, headers: Headers | None, **options: Any) -> httpx.Request:
        merged = httpx.Headers(headers)
        if (request := context.current()) is not None:
            merged.update(request.headers())
        return self._client.build_request(method, path, headers=merged, **options)

    async def send(
        self,
        method: str,
        path: str,
        *,
        headers: Headers | None = None,
        idempotent: bool | None = None,
        **options: Any,
    ) -> httpx.Response:
        """One call, with the whole answer read. The caller looks at the status.

        `idempotent` is taken from the method unless given. `options` are httpx's, such as `content`.
        """
        repeatable = method in ("GET", "HEAD", "PUT", "DELETE") if idempotent is None else idempotent
        with self._translated():
            async with self._slot(), asyncio.timeout(self.timeouts.total_s):
                make = partial(self._request, method, path, headers, **options)
                try:
                    return await self._begun(make)
                except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                    if not repeatable:
                        raise
                    return await self._begun(make)

    async def _begun(self, make: Callable[[], httpx.Request]) -> httpx.Response:
        """The answer of a peer that took the call; one that restarts is asked again until it is back."""
        while True:
            try:
                response = await self._client.send(make())
            except httpx.ConnectError:
                if not self._may_be_back():
                    raise
            else:
                if not _turned_away(response):
                    self._gone_at = None
                    return response
                if not self._may_be_back():
                    return response
            await asyncio.sleep(ASK_AGAIN_S)

    def _may_be_back(self) -> bool:
        now = time.monotonic()
        if self._gone_at is None:
            self._gone_at = now
        return now - self._gone_at < min(self.timeouts.restart_s, self.timeouts.total_s / 2)

    async def call(
        self,
        method: str,
        path: str,
        answer: type[Answer],
        *,
        body: BaseModel | None = None,
        idempotent: bool | None = None,
    ) -> Answer:
        """A typed call: a model out, a model back, the peer's own error raised when it refuses."""
        content = (
            body.model_dump_json(exclude_none=True, by_alias=True).encode() if body is not None else None
        )
        headers = {"content-type": "application/json"} if body is not None else None
        response = await self.send(method, path, headers=headers, content=content, idempotent=idempotent)
        return answer_of(self.peer, response, answer)

    async def ping(self) -> None:
        """Raise unless the peer's process serves. For readiness checks."""
        with self._translated():
            response = await self._client.send(self._request("GET", "/healthz", None))
        if not response.is_success:
            raise Unavailable(f"{self.peer} answers {response.status_code} at {self.base_url}/healthz")
