"""Sends a request to the provider its model names, and records the call whatever becomes of it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from chatd.backends import Completion, Delta, ModelInfo, Provider
from chatd.engine import answers
from chatd.engine.answers import Chunks
from chatd.engine.calls import Call, Origin
from chatd.engine.formats import FormatCheck
from chatd.engine.metrics import Metrics
from chatd.engine.spool import Spool
from schemas.chat import ChatChunk, ChatCompletion, ChatRequest, ModelCard, ModelList
from services.errors import NotFound, PlatformError, Unavailable, UpstreamError, UpstreamTimeout

log = structlog.get_logger(__name__)

DEFAULT_PROVIDER: Final = "ollama"
DIGEST_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds: to a stream's first token, between two tokens, and for a whole call."""

    first_token_s: float
    idle_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Order:
    """A request that can be carried out: who does it, and what the answer is held to."""

    provider: Provider
    request: ChatRequest
    asked_model: str
    format: FormatCheck


class Dispatcher:
    """Chooses the provider, keeps the clocks, writes the records."""

    def __init__(self, providers: Sequence[Provider], spool: Spool, metrics: Metrics, clocks: Clocks) -> None:
        self._providers = {provider.name: provider for provider in providers}
        self._spool = spool
        self._metrics = metrics
        self._clocks = clocks

    def resolve(self, model: str) -> tuple[Provider, str]:
        """The provider of a model id, and the name it knows the model by. A bare name goes to Ollama."""
        head, slash, rest = model.partition("/")
        name, bare = (head, rest) if slash else (DEFAULT_PROVIDER, model)
        provider = self._providers.get(name)
        if provider is None or not bare:
            known = ", ".join(f"`{known}/…`" for known in self._providers)
            raise NotFound(
                f"no provider {name!r} for the model {model!r}; there are: {known}",
                code="model_not_found",
                param="model",
            )
        return provider, bare

    def admit(self, request: ChatRequest) -> Order:
        """Look at a request before there is a call.

        Raises `NotFound` for an unknown provider, `InvalidRequest` for a schema that is none, and
        `Unavailable` when the record would not fit; then there is no run.
        """
        provider, model = self.resolve(request.model)
        check = FormatCheck(request.response_format)
        self._spool.check_room()
        return Order(provider, request.model_copy(update={"model": model}), request.model, check)

    @asynccontextmanager
    async def call(self, order: Order, origin: Origin) -> AsyncIterator[Call]:
        """A call that is recorded when the block ends, however it ends."""
        call = Call(order.provider, order.request, origin)
        try:
            call.digest = await _digest(order.provider, order.request.model)
            yield call
        except Exception as error:
            call.fail(error)
            raise
        finally:
            self._spool.append(call.record().to_line())
            self._measure(call)

    async def generate(self, call: Call, *, within_s: float | None = None) -> Completion:
        """The model's whole answer, within the clock for all calls and that of this one's caller."""
        limit_s = self._clocks.total_s if within_s is None else min(self._clocks.total_s, within_s)
        try:
            async with asyncio.timeout(limit_s):
                completion = await call.provider.complete(call.request)
        except TimeoutError:
            raise _too_slow(call, f"finish within {limit_s:.3g} s") from None
        call.finish(completion)
        return completion

    async def complete(self, order: Order, origin: Origin) -> ChatCompletion:
        """Answer in one piece."""
        async with self.call(order, origin) as call:
            completion = await self.generate(call)
            order.format.check(completion)
        return answers.whole(order.asked_model, call, completion)

    async def stream(self, order: Order, origin: Origin) -> AsyncGenerator[ChatChunk, None]:
        """Answer in chunks. The first one comes with the first token; failures before it are raised as such.

        The record is written before the chunk with the `finish_reason`, so whoever saw that has a run.
        """
        async with self.call(order, origin) as call:
            chunks = Chunks(order.asked_model, call, with_usage=order.request.include_usage)
            async with aclosing(call.provider.stream(call.request)) as deltas:
                while (delta := await self._next(call, deltas)).finish_reason is None:
                    yield chunks.of(delta)
            completion = call.gathered.completion()
            call.finish(completion)
            order.format.check(completion)
        if delta.has_content:
            yield chunks.of(delta)
        yield chunks.finish(completion.finish_reason)
        if (usage := chunks.usage(call.usage)) is not None:
            yield usage

    async def _next(self, call: Call, deltas: AsyncGenerator[Delta, None]) -> Delta:
        """The next delta that says something, within the clocks."""
        clocks = self._clocks
        since_start_s = call.elapsed_ms() / 1000
        if call.ttft_ms is None:
            wait_s, what = clocks.first_token_s - since_start_s, f"say anything in {clocks.first_token_s:g} s"
        else:
            wait_s, what = clocks.idle_s, f"go on for {clocks.idle_s:g} s"
        if clocks.total_s - since_start_s < wait_s:
            wait_s, what = clocks.total_s - since_start_s, f"finish within {clocks.total_s:g} s"
        try:
            async with asyncio.timeout(wait_s):
                while (delta := await anext(deltas, None)) is not None:
                    call.gathered.add(delta)
                    if delta.has_content or delta.finish_reason is not None:
                        break
        except TimeoutError:
            raise _too_slow(call, what) from None
        if delta is None:
            raise UpstreamError(f"{call.provider.name} ended its stream without an end", code="truncated")
        if call.ttft_ms is None:
            call.ttft_ms = call.elapsed_ms()
        return delta

    def _measure(self, call: Call) -> None:
        name = call.provider.name
        self._metrics.calls.labels(name, call.outcome).inc()
        if call.ttft_ms is not None:
            self._metrics.ttft.labels(name).observe(call.ttft_ms / 1000)
        self._metrics.tokens.labels(name, "prompt").inc(call.usage.prompt_tokens or 0)
        self._metrics.tokens.labels(name, "completion").inc(call.usage.completion_tokens or 0)

    # --- models -----------------------------------------------------------------------------

    async def models(self) -> ModelList:
        """The models of all providers that answer. Raises `Unavailable` when none does."""
        providers = list(self._providers.values())
        listed = await asyncio.gather(*(_listed(provider) for provider in providers))
        if all(isinstance(models, PlatformError) for models in listed):
            reasons = "; ".join(str(error) for error in listed)
            raise Unavailable(f"no provider answers: {reasons}", code="no_provider")
        cards = [
            ModelCard(id=f"{provider.name}/{model.name}", created=model.created, owned_by=provider.name)
            for provider, models in zip(providers, listed, strict=True)
            if not isinstance(models, PlatformError)
            for model in models
        ]
        return ModelList(data=cards)

    async def model(self, model: str) -> ModelCard:
        """One model, by its id as in a request."""
        provider, bare = self.resolve(model)
        for info in await provider.models():
            if info.name in (bare, f"{bare}:latest"):
                return ModelCard(id=model, created=info.created, owned_by=provider.name)
        raise NotFound(f"{provider.name} has no model {bare!r}", code="model_not_found", param="model")

    async def ping(self) -> None:
        """Raise unless at least one provider answers."""
        await self.models()


async def _listed(provider: Provider) -> list[ModelInfo] | PlatformError:
    try:
        return await provider.models()
    except PlatformError as error:
        log.warning("a provider lists no models", provider=provider.name, code=error.code)
        return error


async def _digest(provider: Provider, model: str) -> str | None:
    """The model's digest where it can be had quickly; a provider that is down shows in the call itself."""
    try:
        async with asyncio.timeout(DIGEST_TIMEOUT_S):
            return await provider.digest(model)
    except (PlatformError, TimeoutError):
        return None


def _too_slow(call: Call, what: str) -> UpstreamTimeout:
    return UpstreamTimeout(f"{call.provider.name} did not {what}")
