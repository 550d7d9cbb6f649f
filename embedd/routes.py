"""`POST /v1/embeddings`: parse, ask the engine, answer in the asked format."""

import base64
from typing import Annotated

import orjson
from fastapi import Depends, Request, Response

from embedd.engine import Embedded, Engine
from embedd.settings import Settings
from schemas.embeddings import EmbeddingRequest, EmbeddingResponse, EncodingFormat
from services import daemon
from services.errors import InvalidRequest

routes = daemon.router()


def _engine(request: Request) -> Engine:
    engine: Engine = request.state.engine
    return engine


def _settings(request: Request) -> Settings:
    settings: Settings = request.state.settings
    return settings


EngineDep = Annotated[Engine, Depends(_engine)]
SettingsDep = Annotated[Settings, Depends(_settings)]


def texts_of(body: EmbeddingRequest, settings: Settings) -> list[str]:
    """The texts to embed, within the limits. Raises `InvalidRequest` naming the item."""
    items = [body.input] if isinstance(body.input, str) else body.input
    if not items:
        raise InvalidRequest("`input` is empty; send a text or a list of texts", param="input")
    if len(items) > settings.inputs_max:
        raise InvalidRequest(
            f"`input` has {len(items)} texts; at most {settings.inputs_max} are accepted", param="input"
        )
    texts: list[str] = []
    for index, item in enumerate(items):
        if not isinstance(item, str):
            raise InvalidRequest(
                "`input` holds token ids, whose encoding is not known here; send texts "
                "(in LangChain: check_embedding_ctx_length=False)",
                param="input",
                code="token_input",
            )
        _check_text(item, index, settings.text_chars_max)
        texts.append(item)
    return texts


def _check_text(text: str, index: int, chars_max: int) -> None:
    if not text.strip():
        raise InvalidRequest(f"text {index} of `input` is empty", param=f"input.{index}")
    if len(text) > chars_max:
        raise InvalidRequest(
            f"text {index} of `input` has {len(text)} characters; at most {chars_max} are accepted",
            param=f"input.{index}",
        )


def encode(embedded: Embedded, model: str, encoding: EncodingFormat) -> bytes:
    """The OpenAI answer. Numbers are written from the array, without Python floats in between."""
    vectors = embedded.vectors
    rows = (
        [base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode() for row in vectors]
        if encoding == "base64"
        else vectors
    )
    answer = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
        "model": model,
        "usage": {"prompt_tokens": embedded.prompt_tokens, "total_tokens": embedded.prompt_tokens},
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


@routes.post("/v1/embeddings", response_model=EmbeddingResponse)
async def embeddings(body: EmbeddingRequest, engine: EngineDep, settings: SettingsDep) -> Response:
    """Embed one text or many, in order. Vectors are L2-normalised float32."""
    texts = texts_of(body, settings)
    embedded = await engine.embed(body.model.removeprefix("ollama/"), texts, dimensions=body.dimensions)
    headers = {
        "x-model-digest": embedded.model_digest,
        "x-cache": f"hits={embedded.hits} misses={embedded.misses}",
    }
    return Response(
        encode(embedded, body.model, body.encoding_format), media_type="application/json", headers=headers
    )
