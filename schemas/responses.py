"""What is said on `/v1/responses`: the request as OpenAI's clients send it."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field
from pydantic import Tag as Tagged

from schemas.base import SAFE_INTEGER_MAX, Flag, JsonObject, OpenAIModel


class InputText(OpenAIModel):
    type: Literal["input_text", "output_text", "text"]
    text: str


class InputRefusal(OpenAIModel):
    type: Literal["refusal"]
    refusal: str


class InputImage(OpenAIModel):
    type: Literal["input_image"]
    image_url: str
    detail: str | None = None


InputPart = Annotated[InputText | InputRefusal | InputImage, Field(discriminator="type")]


class InputMessage(OpenAIModel):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputPart]


class InputCall(OpenAIModel):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class InputCallOutput(OpenAIModel):
    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputText]


class InputReasoning(OpenAIModel):
    """Thinking of an earlier turn. It is not given back to a model."""

    type: Literal["reasoning"]


def _kind(item: Any) -> str:
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return "message" if kind is None else str(kind)


InputItem = Annotated[
    Annotated[InputMessage, Tagged("message")]
    | Annotated[InputCall, Tagged("function_call")]
    | Annotated[InputCallOutput, Tagged("function_call_output")]
    | Annotated[InputReasoning, Tagged("reasoning")],
    Discriminator(_kind),
]


class FunctionTool(OpenAIModel):
    """A tool that the caller runs. Those that OpenAI's own servers run have other types."""

    type: Literal["function"]
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class ChosenFunction(OpenAIModel):
    type: Literal["function"]
    name: str


class PlainText(OpenAIModel):
    type: Literal["text"]


class AnyJson(OpenAIModel):
    type: Literal["json_object"]


class SchemaText(OpenAIModel):
    type: Literal["json_schema"]
    name: str = "answer"
    description: str | None = None
    schema_: JsonObject = Field(alias="schema")
    strict: bool | None = None


class TextConfig(OpenAIModel):
    format: Annotated[PlainText | AnyJson | SchemaText, Field(discriminator="type")] | None = None


class ReasoningConfig(OpenAIModel):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class ResponsesRequest(OpenAIModel):
    """A conversation to continue, all of it in `input`: nothing is stored, so nothing can be referred to."""

    model: Annotated[str, Field(min_length=1)]
    input: str | Annotated[list[InputItem], Field(min_length=1)]
    instructions: str | None = None
    stream: Flag = False
    max_output_tokens: Annotated[int, Field(ge=1, le=SAFE_INTEGER_MAX)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenFunction | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    metadata: JsonObject | None = None
    user: str | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
