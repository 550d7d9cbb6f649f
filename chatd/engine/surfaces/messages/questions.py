"""Requests of `/v1/messages` as ours."""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from chatd.engine.surfaces.common import chat_request
from schemas.chat import (
    ChatMessage,
    ChatRequest,
    FunctionCall,
    FunctionDefinition,
    ImagePart,
    ImageUrl,
    JsonSchemaFormat,
    JsonSchemaSpec,
    NamedFunction,
    NamedToolChoice,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)
from schemas.messages import (
    Base64Source,
    ImageBlock,
    MessagesRequest,
    TextBlock,
    Thinking,
    ToolPreference,
    ToolResultBlock,
    ToolUseBlock,
    Turn,
)
from services.errors import InvalidRequest

THINKS_A_LITTLE: Final = 2048
THINKS_SOME: Final = 8192
"""Tokens of a thinking budget up to which the effort is low, and medium."""

FAILED_TOOL: Final = "The tool failed: "
"""Says of a tool's result what the protocol in between has no field for."""


def asked(request: MessagesRequest) -> ChatRequest:
    """The request in our words. Raises `InvalidRequest`, naming the field, for what they cannot say."""
    for param in ("container", "mcp_servers", "top_k"):
        if getattr(request, param) is not None:
            raise _unsupported(param)
    fields: dict[str, Any] = {
        "model": request.model,
        "messages": [*_system(request), *_messages(request.messages)],
        "max_completion_tokens": request.max_tokens,
        "stream": request.stream,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": request.stop_sequences or None,
        "reasoning_effort": _effort(request),
        "user": request.metadata.user_id if request.metadata else None,
        "response_format": _format(request),
    }
    if request.tools:
        fields["tools"] = [
            Tool(
                type="function",
                function=FunctionDefinition(
                    name=tool.name,
                    description=tool.description,
                    parameters=tool.input_schema,
                    strict=tool.strict,
                ),
            )
            for tool in request.tools
        ]
    if (choice := request.tool_choice) is not None:
        fields["tool_choice"] = _choice(choice)
        if choice.disable_parallel_tool_use:
            fields["parallel_tool_calls"] = False
    return chat_request(fields, said_in="messages")


def _unsupported(param: str, what: str = "it") -> InvalidRequest:
    return InvalidRequest(
        f"`{param}`: {what} is not supported here", code="unsupported_parameter", param=param
    )


def _system(request: MessagesRequest) -> Iterator[ChatMessage]:
    if isinstance(request.system, str):
        yield ChatMessage(role="system", content=request.system)
    elif request.system:
        yield ChatMessage(role="system", content="\n\n".join(block.text for block in request.system))


def _messages(turns: list[Turn]) -> Iterator[ChatMessage]:
    for index, turn in enumerate(turns):
        if isinstance(turn.content, str):
            yield ChatMessage(role=turn.role, content=turn.content)
        elif turn.role == "assistant":
            yield _said(turn, f"messages.{index}")
        else:
            yield from _heard(turn, f"messages.{index}")


def _said(turn: Turn, where: str) -> ChatMessage:
    """An earlier answer. Thinking stays behind: no model but its own could make use of it."""
    texts: list[str] = []
    calls: list[ToolCall] = []
    for index, block in enumerate(turn.content):
        match block:
            case TextBlock():
                texts.append(block.text)
            case ToolUseBlock():
                arguments = orjson.dumps(block.input).decode()
                calls.append(
                    ToolCall(id=block.id, function=FunctionCall(name=block.name, arguments=arguments))
                )
            case ImageBlock() | ToolResultBlock():
                raise _unsupported(
                    f"{where}.content.{index}", f"a block of type {block.type} of an assistant"
                )
    return ChatMessage(role="assistant", content="".join(texts) or None, tool_calls=calls or None)


def _heard(turn: Turn, where: str) -> Iterator[ChatMessage]:
    """What a user says, in the order it is said: results of tools are messages of their own."""
    parts: list[TextPart | ImagePart] = []
    for index, block in enumerate(turn.content):
        match block:
            case TextBlock():
                parts.append(TextPart(type="text", text=block.text))
            case ImageBlock():
                parts.append(ImagePart(type="image_url", image_url=ImageUrl(url=_url(block))))
            case ToolResultBlock():
                if parts:
                    yield ChatMessage(role=turn.role, content=parts)
                    parts = []
                yield ChatMessage(role="tool", content=_result(block), tool_call_id=block.tool_use_id)
            case ToolUseBlock():
                raise _unsupported(f"{where}.content.{index}", f"a tool_use of a {turn.role}")
    if parts:
        yield ChatMessage(role=turn.role, content=parts)


def _url(block: ImageBlock) -> str:
    source = block.source
    if isinstance(source, Base64Source):
        return f"data:{source.media_type};base64,{source.data}"
    return source.url


def _result(block: ToolResultBlock) -> str:
    content = block.content
    text = content if isinstance(content, str) else "\n".join(part.text for part in content)
    return FAILED_TOOL + text if block.is_error else text


def _choice(choice: ToolPreference) -> ToolChoice:
    match choice.type:
        case "any":
            return "required"
        case "tool":
            if choice.name is None:
                raise InvalidRequest("`tool_choice` of type tool needs a `name`", param="tool_choice.name")
            return NamedToolChoice(type="function", function=NamedFunction(name=choice.name))
        case "auto":
            return "auto"
        case "none":
            return "none"


def _effort(request: MessagesRequest) -> str | None:
    if request.thinking is not None and request.thinking.type == "disabled":
        return "none"
    if request.output_config is not None and request.output_config.effort is not None:
        return request.output_config.effort
    return None if request.thinking is None else _effort_of(request.thinking)


def _effort_of(thinking: Thinking) -> str | None:
    budget = thinking.budget_tokens
    if thinking.type == "adaptive" or budget is None:
        return None
    if budget <= THINKS_A_LITTLE:
        return "low"
    return "medium" if budget <= THINKS_SOME else "high"


def _format(request: MessagesRequest) -> JsonSchemaFormat | None:
    if request.output_config is None or request.output_config.format is None:
        return None
    return JsonSchemaFormat(
        type="json_schema",
        json_schema=JsonSchemaSpec.model_validate({"schema": request.output_config.format.schema_}),
    )
