"""Short questions to daemons about themselves, apart from the ways of requests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import httpx

from services.errors import Unavailable

ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
CONNECTIONS_MAX: Final = 64


class Prober(Protocol):
    async def read(self, url: str, path: str) -> bytes:
        """What a daemon answers to a GET, whatever the status. Raises `Unavailable` if it does not."""
        ...

    async def close(self) -> None: ...


class HttpProber:
    """Over HTTP, with connections of its own, so that it gets through where requests wait for places."""

    def __init__(self, *, timeout_s: float, headers: Mapping[str, str]) -> None:
        self._client = httpx.AsyncClient(
            timeout=timeout_s,
            headers=headers,
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, keepalive_expiry=30.0),
            trust_env=False,
        )

    async def read(self, url: str, path: str) -> bytes:
        pieces: list[bytes] = []
        size = 0
        try:
            async with self._client.stream("GET", url + path) as response:
                async for piece in response.aiter_bytes():
                    size += len(piece)
                    if size > ANSWER_BYTES_MAX:
                        raise Unavailable(f"{url}{path} answers more than {ANSWER_BYTES_MAX} bytes")
                    pieces.append(piece)
        except httpx.HTTPError as error:
            raise Unavailable(f"{url}{path} does not answer: {type(error).__name__}") from error
        return b"".join(pieces)

    async def close(self) -> None:
        await self._client.aclose()


@dataclass(slots=True)
class FakeProber:
    """Answers from a table of URLs and paths; what is not in it does not answer."""

    answers: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def read(self, url: str, path: str) -> bytes:
        self.asked.append(url + path)
        if (answer := self.answers.get(url + path)) is None:
            raise Unavailable(f"{url}{path} does not answer: ConnectError")
        return answer

    async def close(self) -> None:
        return
