"""`/v1/chat/completions`: OpenAI's chat, as JSON or as server-sent events."""

from fastapi import Request, Response

from chatd.engine.surfaces import ChatSurface
from chatd.routes.parts import EpisodeDep
from chatd.routes.sse import reply
from schemas.chat import ChatCompletion, ChatRequest
from services import daemon

routes = daemon.router()

PATH = "/v1/chat/completions"


@routes.post(PATH, response_model=ChatCompletion)
async def chat_completions(body: ChatRequest, request: Request, _: EpisodeDep) -> Response:
    """Continue a conversation, in one piece or as a stream of chunks.

    With `validate`, nothing of the answer is sent before its verdict, and nothing at all that fails it.
    """
    return await reply(body, ChatSurface(with_usage=body.include_usage), request)
