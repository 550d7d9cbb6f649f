"""What is said in chat: the OpenAI-compatible request, answer and chunks of `/v1/chat/completions`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import SAFE_INTEGER_MAX, Flag, JsonObject, Model, OpenAIModel

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class TextPart(OpenAIModel):
    type: Literal["text"]
    text: str


class ImageUrl(OpenAIModel):
    url: str
    detail: str | None = None


class ImagePart(OpenAIModel):
    type: Literal["image_url"]
    image_url: ImageUrl


Optional = Field(default=None, exclude_if=lambda value: value is None)
"""A field that is left out where it would be null."""

ContentPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class FunctionCall(OpenAIModel):
    """`arguments` is the JSON text of an object, as the model wrote it."""

    name: str
    arguments: str


class ToolCall(OpenAIModel):
    """A call of a tool. `extra_content` is the provider's own, to be given back as it came."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall
    extra_content: JsonObject | None = Optional


class ChatMessage(OpenAIModel):
    """One message. `content` may be absent on an assistant's message alone.

    An assistant's thinking comes back under either of the two names that servers have for it.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None

    @property
    def thoughts(self) -> str | None:
        return self.reasoning or self.reasoning_content

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message of role {self.role} needs `content`")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a message of role tool needs `tool_call_id`")
        return self


class FunctionDefinition(OpenAIModel):
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class Tool(OpenAIModel):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(OpenAIModel):
    name: str


class NamedToolChoice(OpenAIModel):
    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedToolChoice


class TextFormat(OpenAIModel):
    type: Literal["text"]


class JsonObjectFormat(OpenAIModel):
    type: Literal["json_object"]


class JsonSchemaSpec(OpenAIModel):
    name: str = "answer"
    description: str | None = None
    schema_: JsonObject = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(OpenAIModel):
    type: Literal["json_schema"]
    json_schema: JsonSchemaSpec


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StreamOptions(OpenAIModel):
    include_usage: Flag = False


class ValidateSpec(Model):
    """Which kind of artifact is wanted, and what its validator needs to know."""

    kind: Annotated[str, Field(min_length=1)]
    context: JsonObject = {}


class GateSpec(ValidateSpec):
    """What an answer must pass before it leaves. A verdict of `allow` lets it pass, beside `accepted`.

    With `attempts_max` above 1 an answer that is held back is repaired, so often at the most.
    """

    attempts_max: Annotated[int, Field(ge=1, le=16)] = 1
    allow: Annotated[list[Literal["partially_accepted", "needs_human_review"]], Field(max_length=2)] = []


class ChatRequest(OpenAIModel):
    """A conversation to continue. Which of the parameters hold depends on the provider, which says so.

    `validate` is ours: with it, the answer is held back until its verdict lets it pass.
    """

    model: Annotated[str, Field(min_length=1)]
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream: Flag = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=SAFE_INTEGER_MAX)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=SAFE_INTEGER_MAX)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Field(ge=-SAFE_INTEGER_MAX, le=SAFE_INTEGER_MAX)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    logit_bias: dict[str, float] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    user: str | None = None
    validate_: GateSpec | None = Field(default=None, alias="validate")

    @property
    def tokens_max(self) -> int | None:
        """The limit on the answer's tokens, under its newer or its older name."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class AnswerMessage(Model):
    """What the model said. `reasoning` is its thinking, where it was asked to think aloud."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    reasoning: str | None = Optional
    tool_calls: list[ToolCall] | None = Optional


class Choice(Model):
    index: int = 0
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: JsonObject | None = None


class PromptDetails(Model):
    cached_tokens: int


class CompletionDetails(Model):
    reasoning_tokens: int


class ChatUsage(Model):
    """The tokens, and what is known of some of them: those that came from a cache, or were thought aloud."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails | None = Optional
    completion_tokens_details: CompletionDetails | None = Optional


class ChatCompletion(Model):
    """The answer in one piece. `usage` is absent where the provider did not count."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: ChatUsage | None = Optional


class FunctionFragment(Model):
    name: str | None = Optional
    arguments: str


class ToolCallFragment(Model):
    """A piece of a tool call: `id`, `type` and the name on the first piece only."""

    index: int
    id: str | None = Optional
    type: Literal["function"] | None = Optional
    function: FunctionFragment
    extra_content: JsonObject | None = Optional


class ChunkDelta(Model):
    role: Literal["assistant"] | None = Optional
    content: str | None = Optional
    refusal: str | None = Optional
    reasoning: str | None = Optional
    tool_calls: list[ToolCallFragment] | None = Optional


class ChunkChoice(Model):
    index: int
    delta: ChunkDelta
    finish_reason: FinishReason | None
    logprobs: JsonObject | None


class ChatChunk(Model):
    """One event of a stream. Write it with `exclude_unset`: no `usage` and a null one differ in meaning."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: ChatUsage | None = None


class ModelCard(Model):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(Model):
    object: Literal["list"] = "list"
    data: list[ModelCard]
