"""The routes of `chatd`: parse, ask the engine, answer."""

from fastapi import APIRouter

from chatd.routes import chat, explain, iterate, messages, models, responses
from chatd.routes.doors import chat_doors
from chatd.routes.messages import PATH as MESSAGES_PATH
from chatd.routes.messages import REQUEST_ID_HEADER as MESSAGES_ID_HEADER

routes = APIRouter()
for topic in (chat, explain, responses, messages, iterate, models):
    routes.include_router(topic.routes)

__all__ = ["MESSAGES_ID_HEADER", "MESSAGES_PATH", "chat_doors", "routes"]
