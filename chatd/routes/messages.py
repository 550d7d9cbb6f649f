"""`/v1/messages`: Anthropic's API over the same core."""

from fastapi import Request, Response

from chatd.engine.surfaces import MessagesSurface, messages
from chatd.routes.parts import EpisodeDep
from chatd.routes.sse import reply
from schemas.messages import MessagesRequest
from services import daemon

routes = daemon.router()

PATH = "/v1/messages"
REQUEST_ID_HEADER = "request-id"
"""What Anthropic's clients call the request's id."""


@routes.post(PATH, response_model=None)
async def create_message(body: MessagesRequest, request: Request, _: EpisodeDep) -> Response:
    """Continue a conversation, in one piece or as a stream of events."""
    return await reply(messages.asked(body), MessagesSurface(), request)
