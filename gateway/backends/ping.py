"""Whether a replica is there and speaks."""

import errno
from typing import Final

from services.errors import Draining, Unavailable
from services.h1 import H1Client, NotConnected
from services.middleware import DRAINING

UNREACHABLE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
"""What the system says where no machine is found that could refuse a connection, or end one."""


async def ping(client: H1Client, daemon: str) -> None:
    """Ask for `/healthz`.

    Raises `Unavailable` (`Draining` while it is about to stop), and `TimeoutError` when nothing is heard of
    it: who waits for an answer there may wait for ever.
    """
    try:
        exchange = await client.send(b"GET", b"/healthz", ())
        try:
            status = await exchange.head()
            draining = DRAINING in exchange.headers
        finally:
            exchange.close()
    except NotConnected as error:
        cause = error.__cause__
        if isinstance(cause, TimeoutError) or (isinstance(cause, OSError) and cause.errno in UNREACHABLE):
            raise TimeoutError(str(error)) from error
        raise _down(client, daemon) from error
    except OSError as error:
        raise _down(client, daemon) from error
    if draining:
        raise Draining(f"{daemon} is shutting down at {client.base_url}", code=f"{daemon}_down")
    if status != 200:
        raise Unavailable(f"{daemon} answers {status} at {client.base_url}/healthz")


def _down(client: H1Client, daemon: str) -> Unavailable:
    return Unavailable(f"{daemon} does not answer at {client.base_url}", code=f"{daemon}_down")
