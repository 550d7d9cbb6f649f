"""Requests of `/v1/responses` as ours."""

from collections.abc import Iterator
from typing import Any, Final

from chatd.engine.surfaces.common import chat_request
from schemas.chat import (
    ChatMessage,
    ChatRequest,
    FunctionCall,
    FunctionDefinition,
    ImagePart,
    ImageUrl,
    JsonObjectFormat,
    JsonSchemaFormat,
    JsonSchemaSpec,
    NamedFunction,
    NamedToolChoice,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCall,
)
from schemas.responses import (
    AnyJson,
    ChosenFunction,
    InputCall,
    InputCallOutput,
    InputImage,
    InputMessage,
    InputRefusal,
    InputText,
    ResponsesRequest,
    SchemaText,
)
from services.errors import InvalidRequest

NOT_STORED: Final = ("store", "background", "previous_response_id", "conversation", "prompt")


def asked(request: ResponsesRequest) -> ChatRequest:
    """The request in our words. Raises `InvalidRequest`, naming the field, for what they cannot say."""
    for param in NOT_STORED:
        if getattr(request, param):
            raise InvalidRequest(
                f"`{param}`: nothing is stored here; send all in `input`, and `store`: false",
                code="unsupported_parameter",
                param=param,
            )
    fields: dict[str, Any] = {
        "model": request.model,
        "messages": list(_messages(request)),
        "max_completion_tokens": request.max_output_tokens,
        "stream": request.stream,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "parallel_tool_calls": request.parallel_tool_calls,
        "reasoning_effort": request.reasoning.effort if request.reasoning else None,
        "user": request.user,
        "response_format": _format(request),
        "tools": _tools(request),
        "tool_choice": _choice(request),
    }
    if request.top_logprobs is not None:
        fields |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    return chat_request(fields, said_in="input")


def _messages(request: ResponsesRequest) -> Iterator[ChatMessage]:
    if request.instructions is not None:
        yield ChatMessage(role="system", content=request.instructions)
    if isinstance(request.input, str):
        yield ChatMessage(role="user", content=request.input)
        return
    said: str | None = None
    calls: list[ToolCall] = []
    for item in request.input:
        match item:
            case InputCall():
                function = FunctionCall(name=item.name, arguments=item.arguments)
                calls.append(ToolCall(id=item.call_id, function=function))
            case InputMessage(role="assistant"):
                if said is not None or calls:
                    yield _turn(said, calls)
                said, calls = _text(item), []
            case InputMessage() | InputCallOutput():
                if said is not None or calls:
                    yield _turn(said, calls)
                said, calls = None, []
                yield _message(item) if isinstance(item, InputMessage) else _result(item)
    if said is not None or calls:
        yield _turn(said, calls)


def _turn(said: str | None, calls: list[ToolCall]) -> ChatMessage:
    """What the model said and called in one earlier answer, which are items of their own here."""
    return ChatMessage(role="assistant", content=said or None, tool_calls=calls or None)


def _text(item: InputMessage) -> str:
    if isinstance(item.content, str):
        return item.content
    texts: list[str] = []
    for part in item.content:
        match part:
            case InputText():
                texts.append(part.text)
            case InputRefusal():
                texts.append(part.refusal)
            case InputImage():
                raise InvalidRequest("an image of an assistant is not supported", param="input")
    return "".join(texts)


def _message(item: InputMessage) -> ChatMessage:
    if isinstance(item.content, str):
        return ChatMessage(role=item.role, content=item.content)
    parts: list[TextPart | ImagePart] = []
    for part in item.content:
        match part:
            case InputText():
                parts.append(TextPart(type="text", text=part.text))
            case InputImage():
                image = ImageUrl(url=part.image_url, detail=part.detail)
                parts.append(ImagePart(type="image_url", image_url=image))
            case InputRefusal():
                parts.append(TextPart(type="text", text=part.refusal))
    return ChatMessage(role=item.role, content=parts)


def _result(item: InputCallOutput) -> ChatMessage:
    output = item.output
    text = output if isinstance(output, str) else "".join(part.text for part in output)
    return ChatMessage(role="tool", content=text, tool_call_id=item.call_id)


def _tools(request: ResponsesRequest) -> list[Tool] | None:
    return [
        Tool(
            type="function",
            function=FunctionDefinition(
                name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict
            ),
        )
        for tool in request.tools or ()
    ] or None


def _choice(request: ResponsesRequest) -> str | NamedToolChoice | None:
    choice = request.tool_choice
    if isinstance(choice, ChosenFunction):
        return NamedToolChoice(type="function", function=NamedFunction(name=choice.name))
    return choice


def _format(request: ResponsesRequest) -> ResponseFormat | None:
    match request.text.format if request.text else None:
        case AnyJson():
            return JsonObjectFormat(type="json_object")
        case SchemaText() as wanted:
            spec = {
                "name": wanted.name,
                "description": wanted.description,
                "schema": wanted.schema_,
                "strict": wanted.strict,
            }
            return JsonSchemaFormat(type="json_schema", json_schema=JsonSchemaSpec.model_validate(spec))
        case _:
            return None
