"""What a look at a replica tells apart: it answers, it is down, or nothing is heard of it."""

import errno
from typing import cast

import pytest

from gateway.backends.ping import ping
from services.errors import Unavailable
from services.h1 import H1Client, NotConnected

pytestmark = pytest.mark.anyio


class NoConnection:
    """A client for whom connecting fails with an error of the system."""

    base_url = "http://10.0.0.1:3105"

    def __init__(self, cause: OSError) -> None:
        self._cause = cause

    async def send(self, *_: object) -> None:
        raise NotConnected("no connection") from self._cause


async def look(cause: OSError) -> None:
    await ping(cast("H1Client", NoConnection(cause)), "validators")


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH])
async def test_where_no_machine_is_found_nothing_is_heard(number: int) -> None:
    with pytest.raises(TimeoutError):
        await look(OSError(number, "unreachable"))


async def test_a_connection_that_takes_too_long_is_as_good_as_none() -> None:
    with pytest.raises(TimeoutError):
        await look(TimeoutError())


@pytest.mark.parametrize(
    "cause", [ConnectionRefusedError(errno.ECONNREFUSED, "refused"), OSError("Multiple exceptions: refused")]
)
async def test_who_refuses_connections_is_down(cause: OSError) -> None:
    with pytest.raises(Unavailable) as failure:
        await look(cause)
    assert failure.value.code == "validators_down"
