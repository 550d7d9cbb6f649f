"""`/v1/models`: what can be asked for."""

from typing import Annotated

from fastapi import Depends, Request

from chatd.engine import Dispatcher
from schemas.chat import ModelCard, ModelList
from services import daemon

routes = daemon.router()


def _dispatcher(request: Request) -> Dispatcher:
    dispatcher: Dispatcher = request.state.dispatcher
    return dispatcher


DispatcherDep = Annotated[Dispatcher, Depends(_dispatcher)]


@routes.get("/v1/models")
async def list_models(dispatcher: DispatcherDep) -> ModelList:
    """The models of every provider that answers, chat and embedding models alike."""
    return await dispatcher.models()


@routes.get("/v1/models/{model:path}")
async def get_model(model: str, dispatcher: DispatcherDep) -> ModelCard:
    """One model by its id, such as `ollama/smollm2:135m`."""
    return await dispatcher.model(model)
