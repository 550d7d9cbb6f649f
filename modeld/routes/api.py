"""The routes of the Ollama API."""

import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import structlog
from fastapi import Depends, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import JsonValue

from modeld.backends import Card, ChatModel, Message, NotCapable, Report, Weights
from modeld.engine import Engine, Generation, Prompt, Resident
from modeld.routes.requests import (
    ChatRequest,
    Completion,
    EmbeddingsRequest,
    EmbedRequest,
    GenerateRequest,
    Options,
    ShowRequest,
)
from modeld.routes.wire import Failure, NdjsonResponse, body_present, line
from services import daemon
from services.disconnect import while_connected
from services.errors import PlatformError

log = structlog.get_logger(__name__)

VERSION: Final = "0.33.0+modeld"  # of the Ollama API that this server follows

Json = dict[str, Any]


def _engine(request: Request) -> Engine:
    engine: Engine = request.state.engine
    return engine


EngineDep = Annotated[Engine, Depends(_engine)]

routes = daemon.router(Failure)
routes.dependencies.append(Depends(body_present))


# --- about the server and its models ------------------------------------------------------------


@routes.get("/", include_in_schema=False)
async def root() -> Response:
    """What Ollama's command line looks for before anything else."""
    return PlainTextResponse("modeld is running, and speaks the Ollama API")


@routes.get("/api/version")
async def version() -> Json:
    """The version of the Ollama API that is spoken here."""
    return {"version": VERSION}


@routes.get("/api/tags")
async def tags(engine: EngineDep) -> Json:
    """The models that can be used."""
    return {
        "models": [
            {
                **_identity(card, weights),
                "modified_at": weights.modified_at.isoformat(),
                "capabilities": [card.capability],
            }
            for card, weights in engine.usable()
        ]
    }


@routes.get("/api/ps")
async def ps(engine: EngineDep) -> Json:
    """The models that are in memory, and until when."""
    return {
        "models": [
            {
                **_identity(resident.card, weights),
                "expires_at": resident.expires_at.isoformat(),
                "size_vram": 0,
                "context_length": resident.card.context_tokens,
            }
            for resident, weights in engine.loaded()
        ]
    }


@routes.post("/api/show")
async def show(body: ShowRequest, engine: EngineDep) -> Json:
    """All that is known about one model."""
    card, weights = engine.find(body.model or body.name)
    return {
        "license": card.license,
        "modelfile": f"FROM {card.name}\n",
        "parameters": f"num_ctx {card.context_tokens}",
        "template": card.template,
        "system": card.system,
        "details": _details(card),
        "model_info": dict(card.info),
        "capabilities": [card.capability],
        "modified_at": weights.modified_at.isoformat(),
    }


def _identity(card: Card, weights: Weights) -> Json:
    return {
        "name": card.name,
        "model": card.name,
        "size": weights.size,
        "digest": card.digest,
        "details": _details(card),
    }


def _details(card: Card) -> Json:
    return {
        "parent_model": "",
        "format": card.file_format,
        "family": card.family,
        "families": [card.family],
        "parameter_size": card.parameter_size,
        "quantization_level": card.quantization,
        "context_length": card.context_tokens,
        "embedding_length": card.embedding_length,
    }


# --- embedding ------------------------------------------------------------------------------------


@routes.post("/api/embed")
async def embed(body: EmbedRequest, request: Request, engine: EngineDep) -> Json:
    """A unit vector for each text, in order."""
    started = time.perf_counter_ns()
    resident, texts = engine.embedder(body.model), body.texts()
    if not texts:
        load_ns = await engine.preload(resident, body.keep_alive)
        return {"model": body.model, "embeddings": [], **_durations(started, load_ns)}
    async with while_connected(request.receive):
        done = await engine.embed(
            resident,
            texts,
            truncate=body.truncate,
            dimensions=body.dimensions,
            keep_alive_s=body.keep_alive,
        )
    return {
        "model": body.model,
        "embeddings": done.vectors.tolist(),
        **_durations(started, done.load_ns),
        "prompt_eval_count": done.tokens,
    }


@routes.post("/api/embeddings")
async def embeddings(body: EmbeddingsRequest, request: Request, engine: EngineDep) -> Json:
    """The superseded form of `/api/embed`: one text; the vector is a unit vector here too."""
    resident = engine.embedder(body.model)
    if not body.prompt:
        await engine.preload(resident, body.keep_alive)
        return {"embedding": []}
    async with while_connected(request.receive):
        done = await engine.embed(
            resident, [body.prompt], truncate=True, dimensions=None, keep_alive_s=body.keep_alive
        )
    return {"embedding": done.vectors[0].tolist()}


def _durations(started_ns: int, load_ns: int) -> Json:
    return {"total_duration": time.perf_counter_ns() - started_ns, "load_duration": load_ns}


# --- chat -----------------------------------------------------------------------------------------


@routes.post("/api/chat")
async def chat(body: ChatRequest, request: Request, engine: EngineDep) -> Any:
    """Answer a conversation, as one object or as a stream of lines."""
    resident = _chat_model(engine, body, "chat")

    def wrap(piece: str) -> Json:
        return {"message": {"role": "assistant", "content": piece}}

    if not body.messages:
        return await _only_load(engine, resident, body, wrap)
    messages = [Message(_role(turn.role), turn.content or "") for turn in body.messages]
    return await _answer(engine, resident, body, messages, wrap=wrap, request=request)


@routes.post("/api/generate")
async def generate(body: GenerateRequest, request: Request, engine: EngineDep) -> Any:
    """Answer a prompt, as one object or as a stream of lines."""
    resident = _chat_model(engine, body, "generate")

    def wrap(piece: str) -> Json:
        return {"response": piece}

    if not body.prompt:
        return await _only_load(engine, resident, body, wrap)
    if body.raw:
        return await _answer(engine, resident, body, body.prompt, wrap=wrap, request=request)
    system = [Message("system", body.system)] if body.system else []
    messages = [*system, Message("user", body.prompt)]
    return await _answer(engine, resident, body, messages, wrap=wrap, request=request)


Wrap = Callable[[str], Json]


def _role(role: str) -> Any:
    assert role != "tool"  # refused before
    return role


def _chat_model(engine: Engine, body: Completion, ability: str) -> Resident[ChatModel]:
    resident = engine.chat_model(body.model, ability)
    if (lacking := body.unsupported()) is not None:
        raise NotCapable(f'"{body.model}" does not support {lacking}')
    return resident


async def _only_load(engine: Engine, resident: Resident[ChatModel], body: Completion, wrap: Wrap) -> Json:
    await engine.preload(resident, body.keep_alive)
    reason = "unload" if body.keep_alive == 0 else "load"
    return {**_stamp(body), **wrap(""), "done": True, "done_reason": reason}


async def _answer(
    engine: Engine,
    resident: Resident[ChatModel],
    body: Completion,
    text: list[Message] | str,
    *,
    wrap: Wrap,
    request: Request,
) -> Any:
    started = time.perf_counter_ns()
    options = body.options or Options()
    prompt = Prompt(text, options.sampling(resident.card.context_tokens), body.schema_wanted())
    async with while_connected(request.receive):
        generation = await engine.generate(resident, prompt, keep_alive_s=body.keep_alive)
        if not body.stream:
            pieces = [piece async for piece in generation]
    if not body.stream:
        engine.count(resident, generation.report)
        return {**_stamp(body), **wrap("".join(pieces)), **_ending(generation, started)}

    async def lines() -> AsyncIterator[bytes]:
        try:
            async for piece in generation:
                yield line({**_stamp(body), **wrap(piece), "done": False})
        except PlatformError as error:
            log.warning("a stream broke off", code=error.code, reason=error.message)
            yield line({"error": error.message})
            return
        engine.count(resident, generation.report)
        yield line({**_stamp(body), **wrap(""), **_ending(generation, started)})

    return NdjsonResponse(lines(), closed=generation.cancel)


def _stamp(body: Completion) -> dict[str, JsonValue]:
    return {"model": body.model, "created_at": datetime.now(UTC).isoformat()}


def _ending(generation: Generation, started_ns: int) -> Json:
    report: Report = generation.report
    return {
        "done": True,
        "done_reason": report.finish,
        **_durations(started_ns, generation.load_ns),
        "prompt_eval_count": report.prompt_tokens,
        "prompt_eval_duration": report.prompt_ns,
        "eval_count": report.answer_tokens,
        "eval_duration": report.answer_ns,
    }
