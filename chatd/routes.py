"""The routes of `chatd`: parse, ask the engine, answer as JSON or as server-sent events."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import Annotated, Final

import structlog
from fastapi import Depends, Header, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from chatd.engine import Dispatcher, Gate, Refiner, new_origin, read_policy, with_policy
from chatd.settings import Settings
from schemas.chat import ChatChunk, ChatCompletion, ChatRequest, GateSpec, ModelCard, ModelList
from schemas.iterate import IterateRequest, IterateResponse
from services import context, daemon, ids
from services.disconnect import ClientGone, while_connected
from services.errors import Forbidden, InvalidRequest, PlatformError

log = structlog.get_logger(__name__)

EPISODE_HEADER: Final = "x-episode-id"
RUN_HEADER: Final = "x-run-id"
POLICY_HEADER: Final = "x-stillhouse-validate"
DONE: Final = b"data: [DONE]\n\n"

routes = daemon.router()


def _dispatcher(request: Request) -> Dispatcher:
    dispatcher: Dispatcher = request.state.dispatcher
    return dispatcher


def _refiner(request: Request) -> Refiner:
    refiner: Refiner = request.state.refiner
    return refiner


def _episode(x_episode_id: Annotated[str | None, Header()] = None) -> str | None:
    """The caller's episode. A malformed one is refused: replaced, it would link nothing."""
    if x_episode_id is not None and ids.REQUEST_ID.fullmatch(x_episode_id) is None:
        raise InvalidRequest(
            "`x-episode-id` has 1 to 128 characters of A-Z a-z 0-9 . _ -", param=EPISODE_HEADER
        )
    return x_episode_id


def _settings(request: Request) -> Settings:
    settings: Settings = request.state.settings
    return settings


def _gate(request: Request) -> Gate:
    gate: Gate = request.state.gate
    return gate


def _policy(request: Request) -> GateSpec | None:
    """The validation policy of the caller's key. Callers cannot send it: the gateway drops such headers."""
    return read_policy(request.headers.get(POLICY_HEADER))


SettingsDep = Annotated[Settings, Depends(_settings)]
DispatcherDep = Annotated[Dispatcher, Depends(_dispatcher)]
RefinerDep = Annotated[Refiner, Depends(_refiner)]
GateDep = Annotated[Gate, Depends(_gate)]
PolicyDep = Annotated[GateSpec | None, Depends(_policy)]
EpisodeDep = Annotated[str | None, Depends(_episode)]


class EventStream(Response):
    """Chunks as server-sent events: `data:` lines alone, `[DONE]` after a clean end, one error otherwise."""

    media_type = "text/event-stream"

    def __init__(
        self,
        first: ChatChunk,
        rest: AsyncGenerator[ChatChunk, None],
        headers: dict[str, str],
        *,
        write_timeout_s: float,
    ) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no", **headers})
        del self.headers["content-length"]
        self._first = first
        self._rest = rest
        self._write_timeout_s = write_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        async def write(event: bytes, *, more: bool = True) -> None:
            try:
                async with asyncio.timeout(self._write_timeout_s):
                    await send({"type": "http.response.body", "body": event, "more_body": more})
            except TimeoutError:
                log.warning("the caller does not read its stream", timeout_s=self._write_timeout_s)
                raise ClientGone("the caller does not read its stream") from None

        with contextlib.suppress(ClientGone):
            async with contextlib.aclosing(self._rest), while_connected(receive):
                await send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                await write(_event(self._first))
                try:
                    async for chunk in self._rest:
                        await write(_event(chunk))
                except ClientGone:
                    raise
                except PlatformError as error:
                    log.warning("stream failed", code=error.code)
                    await write(_error_event(error), more=False)
                else:
                    await write(DONE, more=False)


def _event(chunk: ChatChunk) -> bytes:
    return b"data: %b\n\n" % chunk.model_dump_json(exclude_unset=True).encode()


def _error_event(error: PlatformError) -> bytes:
    request = context.current()
    envelope = error.envelope(request.request_id if request else None)
    return b"data: %b\n\n" % envelope.model_dump_json().encode()


def _headers(run_id: str, episode_id: str | None) -> dict[str, str]:
    return {RUN_HEADER: run_id, **({EPISODE_HEADER: episode_id} if episode_id else {})}


@contextlib.contextmanager
def naming(headers: dict[str, str]) -> Generator[None]:
    """Let failures name the run too."""
    try:
        yield
    except PlatformError as error:
        raise HTTPException(error.status, headers=headers) from error


@routes.post("/v1/chat/completions", response_model=ChatCompletion)
async def chat_completions(
    body: ChatRequest,
    request: Request,
    *,
    dispatcher: DispatcherDep,
    gate: GateDep,
    policy: PolicyDep,
    settings: SettingsDep,
    episode_id: EpisodeDep,
) -> Response:
    """Continue a conversation, in one piece or as a stream of chunks.

    With `validate`, nothing of the answer is sent before its verdict, and nothing at all that fails it.
    """
    if (spec := with_policy(body.validate_, policy)) is not None:
        return await _gated(body, spec, request, gate=gate, settings=settings, episode_id=episode_id)
    order = dispatcher.admit(body)
    origin = new_origin(episode_id=episode_id)
    headers = _headers(origin.run_id, episode_id)
    with naming(headers):
        if not body.stream:
            async with while_connected(request.receive):
                answer = await dispatcher.complete(order, origin)
            return Response(answer.model_dump_json(), media_type="application/json", headers=headers)
        chunks = dispatcher.stream(order, origin)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(chunks.aclose)
            async with while_connected(request.receive):
                first = await anext(chunks)
            stack.pop_all()
        return EventStream(first, chunks, headers, write_timeout_s=settings.write_timeout_s)


async def _gated(
    body: ChatRequest,
    spec: GateSpec,
    request: Request,
    *,
    gate: Gate,
    settings: Settings,
    episode_id: str | None,
) -> Response:
    if spec.attempts_max > 1:
        episode_id = episode_id or ids.uuid7()
    with naming({EPISODE_HEADER: episode_id} if episode_id else {}):
        async with while_connected(request.receive):
            answer = await gate.answer(body, spec, episode_id)
    headers = {**_headers(answer.call.origin.run_id, episode_id), **answer.headers}
    if not body.stream:
        return Response(answer.whole().model_dump_json(), media_type="application/json", headers=headers)
    chunks = answer.chunks()
    return EventStream(await anext(chunks), chunks, headers, write_timeout_s=settings.write_timeout_s)


@routes.post("/v1/iterate", response_model=IterateResponse)
async def iterate(
    body: IterateRequest, request: Request, refiner: RefinerDep, policy: PolicyDep, episode_id: EpisodeDep
) -> Response:
    """Generate an artifact, have it validated, and repair it until it is accepted or the budget ends."""
    if policy is not None:
        raise Forbidden(
            "this key's answers leave only once they are validated, and an iteration shows its failed"
            " attempts; use /v1/chat/completions with `validate`",
            code="validation_policy",
        )
    episode_id = episode_id or ids.uuid7()
    headers = {EPISODE_HEADER: episode_id}
    with naming(headers):
        async with while_connected(request.receive):
            answer = await refiner.run(body, episode_id)
        headers[RUN_HEADER] = answer.attempts[-1].run_id
        return Response(answer.model_dump_json(), media_type="application/json", headers=headers)


@routes.get("/v1/models")
async def list_models(dispatcher: DispatcherDep) -> ModelList:
    """The models of every provider that answers, chat and embedding models alike."""
    return await dispatcher.models()


@routes.get("/v1/models/{model:path}")
async def get_model(model: str, dispatcher: DispatcherDep) -> ModelCard:
    """One model by its id, such as `ollama/smollm2:135m`."""
    return await dispatcher.model(model)
