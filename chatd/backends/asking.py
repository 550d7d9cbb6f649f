"""Puts the wish for JSON into the prompt, for models that nothing holds to it."""

import orjson

from schemas.chat import ChatMessage, ChatRequest, JsonObjectFormat, JsonSchemaFormat


def asked_for_json(request: ChatRequest) -> ChatRequest:
    """The request with its `response_format` said in words, after the caller's own instructions."""
    wish = wish_of(request)
    if wish is None:
        return request
    said = [*request.messages]
    at = next((index for index, one in enumerate(said) if one.role not in ("system", "developer")), len(said))
    said.insert(at, ChatMessage(role="system", content=wish))
    return request.model_copy(update={"messages": said})


def wish_of(request: ChatRequest) -> str | None:
    """What to say to the model of the form its answer has to have; None where any will do."""
    match request.response_format:
        case JsonSchemaFormat(json_schema=spec):
            schema = orjson.dumps(spec.schema_).decode()
            return (
                f"Answer with JSON alone, without any other text, that is valid by this JSON Schema: {schema}"
            )
        case JsonObjectFormat():
            return "Answer with one JSON object alone, without any other text."
    return None
