"""`/v1/chat/completions`: parse, ask the engine, answer as JSON or as server-sent events."""

import contextlib

from fastapi import Request, Response

from chatd.engine import Gate, new_origin, with_policy
from chatd.routes.parts import (
    EPISODE_HEADER,
    DispatcherDep,
    EpisodeDep,
    GateDep,
    PolicyDep,
    SettingsDep,
    headers_of,
    naming,
)
from chatd.routes.sse import EventStream
from chatd.settings import Settings
from schemas.chat import ChatCompletion, ChatRequest, GateSpec
from services import daemon, ids
from services.disconnect import while_connected

routes = daemon.router()


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
    headers = headers_of(origin.run_id, episode_id)
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
    headers = {**headers_of(answer.call.origin.run_id, episode_id), **answer.headers}
    if not body.stream:
        return Response(answer.whole().model_dump_json(), media_type="application/json", headers=headers)
    chunks = answer.chunks()
    return EventStream(await anext(chunks), chunks, headers, write_timeout_s=settings.write_timeout_s)
