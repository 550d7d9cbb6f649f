"""The daemons that a replay asks: chatd for answers, validators for verdicts, vectord for earlier work."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol, Self

import httpx

from schemas.iterate import IterateRequest, IterateResponse
from schemas.verdicts import ValidateRequest, Verdict
from services.clients import ChatdClient, ValidatorsClient, VectordClient
from services.http import Limits, PeerClient, Timeouts


class Peers(Protocol):
    """Entered in the event loop that asks. Every method raises `PlatformError` as the peer means it."""

    @property
    def vectord(self) -> VectordClient:
        """For the search of earlier work."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def iterate(self, request: IterateRequest, episode_id: str) -> IterateResponse:
        """Have a task done; its runs are recorded under `episode_id`."""

    async def validate(self, request: ValidateRequest) -> Verdict:
        """The verdict on an answer."""


class HttpPeers:
    """The real ones. A task may take `timeout_s` with all its attempts."""

    def __init__(
        self,
        chatd_url: str,
        validators_url: str,
        vectord_url: str,
        *,
        timeout_s: float,
        headers: Mapping[str, str],
    ) -> None:
        self._headers = headers
        self._patient = Timeouts(read_s=timeout_s, total_s=timeout_s)
        self._urls = (chatd_url, validators_url, vectord_url)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        chatd, validators, vectord = self._urls
        enter = self._stack.enter_async_context
        self._chatd = await enter(ChatdClient(self._client("chatd", chatd, self._patient)))
        self._validators = await enter(ValidatorsClient(self._client("validators", validators)))
        self._vectord = await enter(VectordClient(self._client("vectord", vectord)))
        return self

    def _client(self, peer: str, url: str, timeouts: Timeouts | None = None) -> PeerClient:
        # Who asks bounds the number of calls; nothing waits for a place here.
        limits = Limits(concurrency_max=1024, waiting_max=0)
        return PeerClient(peer, url, timeouts=timeouts, limits=limits, headers=self._headers)

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def vectord(self) -> VectordClient:
        return self._vectord

    async def iterate(self, request: IterateRequest, episode_id: str) -> IterateResponse:
        return await self._chatd.iterate(request, episode_id)

    async def validate(self, request: ValidateRequest) -> Verdict:
        return await self._validators.validate(request)


def _nobody(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody is there", request=request)


@dataclass
class FakePeers:
    """Peers that answer by function, and count what they were asked. vectord is one that is down."""

    answer: Callable[[IterateRequest, str], IterateResponse]
    judge: Callable[[ValidateRequest], Verdict]
    vectord: VectordClient = field(
        default_factory=lambda: VectordClient(
            PeerClient("vectord", "http://vectord", transport=httpx.MockTransport(_nobody))
        )
    )
    asked: list[IterateRequest] = field(default_factory=list)
    judged: list[ValidateRequest] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.vectord.peer.__aexit__()

    async def iterate(self, request: IterateRequest, episode_id: str) -> IterateResponse:
        self.asked.append(request)
        return self.answer(request, episode_id)

    async def validate(self, request: ValidateRequest) -> Verdict:
        self.judged.append(request)
        return self.judge(request)
