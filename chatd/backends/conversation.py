"""What the adapters of foreign formats need to know of a conversation in OpenAI's."""

import binascii
import re
from base64 import b64decode
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import orjson

from chatd.backends.provider import Lack
from schemas.base import JsonObject
from schemas.chat import ChatMessage, ChatRequest, ToolCall
from services.errors import InvalidRequest

_DATA_URL: Final = re.compile(r"data:(image/[a-z0-9.+-]{1,64});base64,", re.IGNORECASE)


class Image(NamedTuple):
    """`data` is base64."""

    media_type: str
    data: str


def embedded(provider: str, url: str, param: str) -> Image:
    """The image that a data URL holds. Raises `InvalidRequest` for any other URL."""
    match = _DATA_URL.match(url)
    data = url[match.end() :] if match else ""
    try:
        b64decode(data, validate=True)
    except binascii.Error:
        data = ""
    if match is None or not data:
        raise InvalidRequest(
            f"{provider} takes images as base64 data URLs (data:image/png;base64,…) only", param=param
        )
    return Image(match[1].lower(), data)


def is_remote(url: str) -> bool:
    return url.startswith(("https://", "http://"))


def called(messages: Sequence[ChatMessage]) -> dict[str, str]:
    """The names of the tools that were called, by the ids of the calls."""
    return {call.id: call.function.name for message in messages for call in message.tool_calls or ()}


def arguments_of(call: ToolCall, index: int) -> JsonObject:
    """The arguments of a call in message `index`. Raises `InvalidRequest` unless they say an object."""
    try:
        value = orjson.loads(call.function.arguments or "{}")
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest(
            "the `arguments` of a tool call are not the JSON text of an object",
            param=f"messages.{index}.tool_calls",
        )
    return value


def nameless(request: ChatRequest) -> tuple[Lack, ...]:
    """The names of participants, for formats that know roles alone. A tool's name is in its call anyway."""
    return tuple(
        Lack(f"messages.{index}.name", "it knows participants by their roles alone")
        for index, message in enumerate(request.messages)
        if message.name is not None and message.role != "tool"
    )


def declared(request: ChatRequest, params: Collection[str]) -> tuple[Lack, ...]:
    """Parameters of a request among those that its provider's server is said not to honour."""
    return tuple(
        Lack(param, "the server behind it does not honour it")
        for param in params
        if getattr(request, param) not in (None, False, [], {})
    )
