"""The typed clients of our own daemons: an answer is what its schema says, or the peer's fault."""

from collections.abc import Awaitable, Callable

import httpx
import pytest

from schemas.verdicts import ValidateRequest
from services.clients import DistillClient, EmbeddClient, ValidatorsClient
from services.errors import UpstreamError
from services.http import PeerClient

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "ask",
    [
        lambda peer: EmbeddClient(peer).embed("m", ["text"]),
        lambda peer: DistillClient(peer).append([b"{}\n"]),
        lambda peer: ValidatorsClient(peer).kinds(),
        lambda peer: ValidatorsClient(peer).validate(ValidateRequest(kind="sms", artifact={})),
    ],
    ids=["embed", "append", "kinds", "validate"],
)
async def test_an_answer_of_another_kind_is_the_peers_fault(
    ask: Callable[[PeerClient], Awaitable[object]],
) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"something": "else"}))
    async with PeerClient("peerd", "http://peerd", transport=transport) as peer:
        with pytest.raises(UpstreamError, match="peerd answered something else"):
            await ask(peer)
