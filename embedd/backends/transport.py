"""How a backend's HTTP calls are made: bounded in time and size, with our errors out of it."""

import asyncio
from collections.abc import Sequence
from typing import Final

from services.errors import Unavailable, UpstreamTimeout
from services.h1 import BrokenOff, H1Client, NotConnected

ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024

Header = tuple[bytes, bytes]


class Transport:
    """Calls one server. A call whose connection turns out to be dead is made once more on a new one."""

    def __init__(
        self, client: H1Client, *, peer: str, timeout_s: float, headers: Sequence[Header] = ()
    ) -> None:
        self.base_url = client.base_url
        self._client = client
        self._peer = peer
        self._timeout_s = timeout_s
        self._headers = [(b"content-type", b"application/json"), (b"accept", b"application/json"), *headers]

    async def call(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body. Raises `Unavailable` or `UpstreamTimeout`, naming the peer."""
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self._once(method, path, body)
                except BrokenOff:
                    return await self._once(method, path, body)
        except NotConnected as error:
            raise Unavailable(
                f"{self._peer} does not answer at {self.base_url}", code=f"{self._peer}_down"
            ) from error
        except BrokenOff as error:
            raise Unavailable(
                f"the connection to {self._peer} at {self.base_url} broke: {error}", code=f"{self._peer}_down"
            ) from error
        except TimeoutError as error:
            raise UpstreamTimeout(f"{self._peer} did not answer within {self._timeout_s:g} s") from error

    async def _once(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        exchange = await self._client.send(method.encode(), path.encode(), self._headers, body)
        try:
            return await exchange.head(), await exchange.body(bytes_max=ANSWER_BYTES_MAX)
        finally:
            exchange.close()
