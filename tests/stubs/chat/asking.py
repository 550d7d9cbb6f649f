"""Requests for providers, and their streams put together."""

from contextlib import aclosing
from typing import Any

from chatd.backends import Completion, Delta, Gathered, Provider
from schemas.chat import ChatRequest


def ask(**extra: Any) -> ChatRequest:
    return ChatRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], **extra}
    )


async def gathered(
    provider: Provider, request: ChatRequest | None = None, *, key: int = 0
) -> tuple[Gathered, list[Delta]]:
    out, deltas = Gathered(), []
    async with aclosing(provider.stream(request or ask(), key=key)) as stream:
        async for delta in stream:
            out.add(delta)
            deltas.append(delta)
    return out, deltas


async def answered(provider: Provider, request: ChatRequest | None = None, *, stream: bool) -> Completion:
    """The same answer by either way."""
    if stream:
        out, _ = await gathered(provider, request)
        return out.completion()
    return await provider.complete(request or ask())
