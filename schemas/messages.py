"""What is said on Anthropic's route, `/v1/messages`: the request as its clients send it."""

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.base import SAFE_INTEGER_MAX, Flag, JsonObject, OpenAIModel


class TextBlock(OpenAIModel):
    type: Literal["text"]
    text: str


class Base64Source(OpenAIModel):
    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str


class UrlSource(OpenAIModel):
    type: Literal["url"]
    url: str


class ImageBlock(OpenAIModel):
    type: Literal["image"]
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")]


class ToolUseBlock(OpenAIModel):
    type: Literal["tool_use"]
    id: str
    name: str
    input: JsonObject


class ToolResultBlock(OpenAIModel):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlock] = ""
    is_error: Flag = False


class ThinkingBlock(OpenAIModel):
    """Thinking of an earlier turn. It is not given back to a model."""

    type: Literal["thinking", "redacted_thinking"]


Block = Annotated[
    TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock, Field(discriminator="type")
]


class Turn(OpenAIModel):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class ClientTool(OpenAIModel):
    """A tool that the caller runs. Those that Anthropic's own servers run have other types."""

    type: Literal["custom"] | None = None
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    input_schema: JsonObject
    strict: bool | None = None


class ToolPreference(OpenAIModel):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: Flag = False


class Thinking(OpenAIModel):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=1)] | None = None


class OutputFormat(OpenAIModel):
    type: Literal["json_schema"]
    schema_: JsonObject = Field(alias="schema")


class OutputConfig(OpenAIModel):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class Metadata(OpenAIModel):
    user_id: str | None = None


class MessagesRequest(OpenAIModel):
    """A conversation to continue, in Anthropic's words. What is known and not supported is refused."""

    model: Annotated[str, Field(min_length=1)]
    messages: Annotated[list[Turn], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1, le=SAFE_INTEGER_MAX)]
    system: str | list[TextBlock] | None = None
    stream: Flag = False
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[ClientTool] | None = None
    tool_choice: ToolPreference | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    metadata: Metadata | None = None
    container: Any = None
    mcp_servers: Any = None
