"""What Anthropic is asked, from OpenAI's words."""

from typing import Any, Final

import orjson

from chatd.backends.asking import wish_of
from chatd.backends.conversation import arguments_of, embedded, is_remote
from chatd.backends.schemas import natively
from schemas.base import JsonObject
from schemas.chat import (
    ChatMessage,
    ChatRequest,
    FunctionDefinition,
    ImagePart,
    JsonSchemaFormat,
    NamedToolChoice,
    TextPart,
)

_EFFORT: Final = {"minimal": "low"}


def body_of(provider: str, request: ChatRequest, *, stream: bool, tokens_max_default: int) -> bytes:
    """The body of a request that lacks nothing."""
    system, turns = _turns(provider, request)
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.tokens_max or tokens_max_default,
        "messages": turns,
        "stream": stream,
        "system": system or None,
        "stop_sequences": [request.stop] if isinstance(request.stop, str) else request.stop,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "metadata": {"user_id": request.user} if request.user else None,
        **_tools(request),
        **_output(request),
    }
    return orjson.dumps({key: value for key, value in body.items() if value is not None})


def _turns(provider: str, request: ChatRequest) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Instructions, and turns of user and assistant. Results of tools are said by the user."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(request.messages):
        blocks = _blocks(provider, message, index)
        if message.role in ("system", "developer"):
            system += blocks
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if message.role == "tool":
            result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": blocks}
            blocks = [result]
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if _schema(request) is None and (wish := wish_of(request)) is not None:
        system.append({"type": "text", "text": wish})
    return system, turns


def _blocks(provider: str, message: ChatMessage, index: int) -> list[dict[str, Any]]:
    """The content of a message. Empty texts, which this API refuses, say nothing and are left out."""
    parts = message.content or []
    if isinstance(parts, str):
        parts = [TextPart(type="text", text=parts)]
    blocks: list[dict[str, Any]] = []
    for position, part in enumerate(parts):
        if isinstance(part, ImagePart):
            param = f"messages.{index}.content.{position}.image_url.url"
            blocks.append(_image(provider, part.image_url.url, param))
        elif part.text:
            blocks.append({"type": "text", "text": part.text})
    calls = [
        {
            "type": "tool_use",
            "id": call.id,
            "name": call.function.name,
            "input": arguments_of(call, index),
        }
        for call in message.tool_calls or ()
    ]
    return blocks + calls


def _image(provider: str, url: str, param: str) -> dict[str, Any]:
    if is_remote(url):
        return {"type": "image", "source": {"type": "url", "url": url}}
    image = embedded(provider, url, param)
    source = {"type": "base64", "media_type": image.media_type, "data": image.data}
    return {"type": "image", "source": source}


def _tools(request: ChatRequest) -> dict[str, Any]:
    if not request.tools:
        return {}
    choice: dict[str, Any] | None
    match request.tool_choice:
        case "none":
            choice = {"type": "none"}
        case "required":
            choice = {"type": "any"}
        case NamedToolChoice(function=function):
            choice = {"type": "tool", "name": function.name}
        case _:
            choice = {"type": "auto"} if request.parallel_tool_calls is False else None
    if choice is not None and request.parallel_tool_calls is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    return {"tools": [_tool(tool.function) for tool in request.tools], "tool_choice": choice}


def _tool(function: FunctionDefinition) -> dict[str, Any]:
    tool = {
        "name": function.name,
        "description": function.description,
        "input_schema": function.parameters or {"type": "object", "properties": {}},
        "strict": function.strict or None,
    }
    return {key: value for key, value in tool.items() if value is not None}


def _schema(request: ChatRequest) -> JsonObject | None:
    """The schema that this API itself can hold an answer to; None where it has to be asked for in words."""
    wanted = request.response_format
    return natively(wanted.json_schema.schema_) if isinstance(wanted, JsonSchemaFormat) else None


def _output(request: ChatRequest) -> dict[str, Any]:
    """What is asked of the form of an answer, and of the thinking before it."""
    output: dict[str, Any] = {}
    if (schema := _schema(request)) is not None:
        output["format"] = {"type": "json_schema", "schema": schema}
    thinking: dict[str, Any] | None = None
    if request.reasoning_effort == "none":
        thinking = {"type": "disabled"}
    elif request.reasoning_effort is not None:
        thinking = {"type": "adaptive", "display": "summarized"}
        output["effort"] = _EFFORT.get(request.reasoning_effort, request.reasoning_effort)
    return {"thinking": thinking, "output_config": output or None}
