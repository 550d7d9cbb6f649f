"""Which models there are, by what their providers say."""

import asyncio
from typing import Final

import structlog

from chatd.backends import ModelInfo, Provider
from chatd.engine.candidates import route
from chatd.engine.config import Snapshot
from schemas.chat import ModelCard, ModelList
from services.errors import NotFound, PlatformError, Unavailable

log = structlog.get_logger(__name__)

OWN: Final = "stillhouse"


async def models(snapshot: Snapshot) -> ModelList:
    """The aliases, and the models of all providers that answer. Raises `Unavailable` when none does."""
    providers = list(snapshot.providers.values())
    listed = await asyncio.gather(*(_listed(provider) for provider in providers))
    failures = [models for models in listed if isinstance(models, PlatformError)]
    if len(failures) == len(listed):
        told = "; ".join(failure.message for failure in failures)
        summed_up = "; ".join(failure.summary for failure in failures)
        begin = "no provider answers"
        raise Unavailable(f"{begin}: {told}", code="no_provider", summary=f"{begin}: {summed_up}")
    cards = [ModelCard(id=alias, created=0, owned_by=OWN) for alias in snapshot.config.aliases]
    cards += [
        ModelCard(id=f"{provider.name}/{model.name}", created=model.created, owned_by=provider.name)
        for provider, models in zip(providers, listed, strict=True)
        if not isinstance(models, PlatformError)
        for model in models
    ]
    return ModelList(data=cards)


async def model(snapshot: Snapshot, asked: str) -> ModelCard:
    """One model, by its id as in a request."""
    found = route(snapshot, asked)
    if found.alias:
        return ModelCard(id=asked, created=0, owned_by=OWN)
    target = found.targets[0]
    for info in await target.provider.models():
        if info.name in (target.model, f"{target.model}:latest"):
            return ModelCard(id=asked, created=info.created, owned_by=target.provider.name)
    raise NotFound(
        f"{target.provider.name} has no model {target.model!r}", code="model_not_found", param="model"
    )


async def _listed(provider: Provider) -> list[ModelInfo] | PlatformError:
    try:
        return await provider.models()
    except PlatformError as error:
        log.warning("a provider lists no models", provider=provider.name, code=error.code)
        return error
