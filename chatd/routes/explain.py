"""`/v1/chat/explain`: which models would be tried, and why."""

from fastapi import Request

from chatd.engine import caller_of, explain
from chatd.routes.models import DispatcherDep
from schemas.chat import ChatRequest
from schemas.explain import Explanation
from services import daemon

routes = daemon.router()


@routes.post("/v1/chat/explain")
async def explain_chat(body: ChatRequest, request: Request, dispatcher: DispatcherDep) -> Explanation:
    """Say how a chat would be carried out now: its candidates in order, and why each. Calls none of them."""
    return explain(dispatcher, dispatcher.admit(body, caller_of(request.headers)))
