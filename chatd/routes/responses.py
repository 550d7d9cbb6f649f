"""`/v1/responses`: OpenAI's newer API over the same core. Nothing is stored."""

from fastapi import Request, Response

from chatd.engine.surfaces import ResponsesSurface, responses
from chatd.routes.parts import EpisodeDep
from chatd.routes.sse import reply
from schemas.responses import ResponsesRequest
from services import daemon

routes = daemon.router()

PATH = "/v1/responses"


@routes.post(PATH, response_model=None)
async def create_response(body: ResponsesRequest, request: Request, _: EpisodeDep) -> Response:
    """Continue a conversation whose items are all in `input`, in one piece or as a stream of events."""
    return await reply(responses.asked(body), ResponsesSurface(body), request)
