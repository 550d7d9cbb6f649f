"""The routes of `chatd`: parse, ask the engine, answer."""

from fastapi import APIRouter

from chatd.routes import chat, iterate, models

routes = APIRouter()
for topic in (chat, iterate, models):
    routes.include_router(topic.routes)

__all__ = ["routes"]
