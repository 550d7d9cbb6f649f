"""The routes of `chatd`: parse, ask the engine, answer."""

from fastapi import APIRouter

from chatd.routes import chat, explain, iterate, messages, models, responses
from chatd.routes.doors import chat_doors

routes = APIRouter()
for topic in (chat, explain, responses, messages, iterate, models):
    routes.include_router(topic.routes)

__all__ = ["chat_doors", "routes"]
