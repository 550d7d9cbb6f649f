"""One request on its way to an answer, whichever API it came by and whichever way its answer leaves."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import structlog
from starlette.types import Scope

from chatd.engine import (
    CALLER_HEADERS,
    Caller,
    Dispatcher,
    Gate,
    Opened,
    caller_of,
    new_origin,
    read_policy,
    with_policy,
)
from chatd.engine.calls import Call
from chatd.engine.surfaces import Heading, Surface, Writer
from chatd.routes.parts import EPISODE_HEADER, POLICY_HEADER, RUN_HEADER, episode_of
from schemas.chat import ChatRequest, GateSpec
from schemas.runs import Usage
from services import context, ids
from services.errors import PlatformError
from services.metering import METERED_HEADER, comment

log = structlog.get_logger(__name__)

STREAM_HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}
HEARD: Final = frozenset(
    name.encode() for name in (POLICY_HEADER, EPISODE_HEADER, METERED_HEADER, *CALLER_HEADERS)
)
"""What a conversation heeds of its request's headers."""


@dataclass(frozen=True, slots=True)
class Told:
    """An answer as it leaves: all of it, or the first of a stream and what comes after."""

    body: bytes
    rest: AsyncGenerator[bytes, None] | None = None


@dataclass(slots=True)
class Conversation:
    """What is asked, and by whom. `headers` are those of the answer, or of the failure in its place.

    `metered`: the tokens of a stream are told whether its caller wants to know them or not.
    """

    request: ChatRequest
    surface: Surface
    caller: Caller
    policy: GateSpec | None
    episode_id: str | None
    metered: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def media_type(self) -> str:
        return "text/event-stream" if self.request.stream else "application/json"

    async def answer(self, dispatcher: Dispatcher, gate: Gate) -> Told:
        """Ask, and come back with the answer, or with a stream once its first token is there.

        Cancelling it gives the call up. Raises `PlatformError`, for which `headers` hold too.
        """
        spec = with_policy(self.request.validate_, self.policy)
        if spec is not None:
            return await self._gated(gate, spec)
        order = dispatcher.admit(self.request, self.caller)
        origin = new_origin(episode_id=self.episode_id)
        origin.headers.update(self.headers)
        self.headers = origin.headers
        if not self.request.stream:
            answered = await dispatcher.complete(order, origin)
            return Told(self.surface.whole(self._heading(answered.call), answered.completion))
        opened = await dispatcher.open(order, origin)
        try:
            stream = self._events(opened)
            return Told(await anext(stream), stream)
        except BaseException:
            await opened.deltas.aclose()
            raise

    def _heading(self, call: Call) -> Heading:
        return Heading(call.origin.run_id, int(call.ts.timestamp()), self.request.model)

    async def _events(self, opened: Opened) -> AsyncGenerator[bytes, None]:
        writer = self.surface.writer(self._heading(opened.call))
        begun = writer.begin()
        try:
            async with aclosing(opened.deltas):
                async for delta in opened.deltas:
                    if delta.finish_reason is None:
                        yield begun + writer.delta(delta)
                        begun = b""
                    else:
                        yield begun + self._cost(delta.usage) + writer.end(delta)
        except PlatformError as error:
            log.warning("stream failed", code=error.code)
            yield _broken(writer, error)

    def _cost(self, usage: Usage | None) -> bytes:
        """The tokens, said before the end, after which nobody may be listening."""
        if not self.metered or usage is None:
            return b""
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            return b""
        return comment(usage.prompt_tokens + usage.completion_tokens)

    async def _gated(self, gate: Gate, spec: GateSpec) -> Told:
        episode_id = self.episode_id
        if spec.attempts_max > 1:
            episode_id = episode_id or ids.uuid7()
        if episode_id:
            self.headers[EPISODE_HEADER] = episode_id
        gated = await gate.answer(self.request, spec, episode_id)
        self.headers |= {RUN_HEADER: gated.call.origin.run_id, **gated.headers}
        heading = self._heading(gated.call)
        if not self.request.stream:
            return Told(self.surface.whole(heading, gated.completion))
        writer = self.surface.writer(heading)
        said, last = gated.deltas()
        spoken = writer.delta(said) if said.has_content else b""
        return Told(b"".join((writer.begin(), spoken, self._cost(last.usage), writer.end(last))))


def conversation(request: ChatRequest, surface: Surface, scope: Scope) -> Conversation:
    """What a request asks, with what its headers say. Raises `PlatformError` for those that make no sense."""
    said = {
        name.decode(): str(value, "latin-1")
        for name, value in reversed(scope["headers"])  # the first of a name counts
        if name in HEARD
    }
    return Conversation(
        request,
        surface,
        caller_of(said),
        read_policy(said.get(POLICY_HEADER)),
        episode_of(said.get(EPISODE_HEADER)),
        metered=METERED_HEADER in said,
    )


def _broken(writer: Writer, error: PlatformError) -> bytes:
    request = context.current()
    return writer.broken(error, request.request_id if request else None)
