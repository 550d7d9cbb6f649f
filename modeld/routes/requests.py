"""What callers send, as Ollama reads it: unknown fields are ignored, wrong types are not."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictInt,
    model_validator,
)

from modeld.backends import FormatRefused, Sampling
from services.errors import InvalidRequest

DURATION: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
SECONDS: Final = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "\u00b5s": Decimal("1e-6"),
    "\u03bcs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
KEEP_ALIVE_S_MAX: Final = 2**63 / 1e9  # Go's longest duration
SEED_MAX: Final = 2**32


def _duration_s(text: str) -> float:
    """Seconds of a Go duration such as `1h30m` or `-1s`."""
    negative = text.startswith("-")
    digits = text[1:] if text[:1] in ("-", "+") else text
    if digits == "0":
        return 0.0
    parts = DURATION.findall(digits)
    if not parts or "".join(number + unit for number, unit in parts) != digits:
        missing = re.fullmatch(r"\d+\.?\d*|\.\d+", digits)
        problem = "missing unit in duration" if missing else "invalid duration"
        raise ValueError(f'time: {problem} "{text}"; write for example "10m"')
    total = float(sum(Decimal(number) * SECONDS[unit] for number, unit in parts))
    return -total if negative else total


def _keep_alive_s(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        seconds = _duration_s(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise ValueError('a number of seconds or a duration such as "10m" is expected')  # noqa: TRY004 - pydantic's
    return -1.0 if seconds < 0 or seconds >= KEEP_ALIVE_S_MAX else seconds


KeepAlive = Annotated[float | None, BeforeValidator(_keep_alive_s)]
"""Seconds that the model stays loaded; negative for ever, 0 not at all, None the server's default."""


class OllamaModel(BaseModel):
    """A body of an Ollama route. A null is as good as nothing said, as Go reads it."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None}


class Options(OllamaModel):
    """The options that mean something here; what tunes Ollama's own runner (`num_gpu`, …) is ignored."""

    temperature: float = Field(0.8, ge=0)
    top_k: int = Field(40, ge=0, le=2**31 - 1)
    top_p: float = Field(0.9, ge=0, le=1)
    min_p: float = Field(0.0, ge=0, le=1)
    typical_p: float = Field(1.0, ge=0, le=1)
    repeat_penalty: float = Field(1.1, gt=0)
    repeat_last_n: int = Field(64, ge=-1, le=2**31 - 1)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    num_predict: int = -1
    num_ctx: int | None = Field(None, ge=1)
    stop: tuple[str, ...] = Field((), max_length=16)

    @model_validator(mode="before")
    @classmethod
    def _typed(cls, data: Any) -> Any:
        for name, value in data.items() if isinstance(data, dict) else ():
            field = cls.model_fields.get(name)
            expected = _expected(field.annotation) if field else None
            if expected and value is not None and not _fits(value, expected):
                raise ValueError(f'option "{name}" must be of type {expected}')
        return data

    def sampling(self, context_tokens: int) -> Sampling:
        """The same for the engine. `context_tokens` is what there is: asking for more is refused."""
        if self.num_ctx is not None and self.num_ctx > context_tokens:
            raise InvalidRequest(
                f"`num_ctx` is {self.num_ctx}; this server has {context_tokens} (MODELD_CONTEXT_TOKENS)",
                param="options.num_ctx",
            )
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            typical_p=self.typical_p,
            repeat_penalty=self.repeat_penalty,
            repeat_last_n=context_tokens if self.repeat_last_n < 0 else self.repeat_last_n,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            seed=None if self.seed is None or self.seed < 0 else self.seed % SEED_MAX,
            predict_max=self.num_predict if self.num_predict > 0 else None,
            stop=self.stop,
        )


def _expected(annotation: Any) -> str:
    return {float: "float32", int: "integer", int | None: "integer"}.get(annotation, "array of strings")


def _fits(value: Any, expected: str) -> bool:
    if expected == "array of strings":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return expected == "float32" or value == int(value)


class Call(OllamaModel):
    """What every call about a model has."""

    model: str = ""
    keep_alive: KeepAlive = None


class EmbedRequest(Call):
    """`input` is a string or a list of strings; nothing at all only loads the model."""

    input: JsonValue = None
    truncate: StrictBool = True
    dimensions: StrictInt | None = None
    options: dict[str, JsonValue] | None = None

    def texts(self) -> list[str]:
        if isinstance(self.input, str):
            return [self.input] if self.input else []
        texts = [] if self.input is None else self.input
        if not isinstance(texts, list):
            raise InvalidRequest("invalid input type", param="input")
        strings = [text for text in texts if isinstance(text, str)]
        if len(strings) != len(texts):
            raise InvalidRequest("invalid input type", param="input")
        return strings


class EmbeddingsRequest(Call):
    """The superseded form: one text, one vector."""

    prompt: str = ""
    options: dict[str, JsonValue] | None = None


class MessageIn(OllamaModel):
    """One turn. Images and tool calls are read so that they can be refused by name."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = ""
    images: list[JsonValue] | None = None
    tool_calls: list[JsonValue] | None = None


class Completion(Call):
    """What chat and generate share. Fields of Ollama's that a small model cannot honour are refused."""

    stream: StrictBool = True
    format: JsonValue = None
    options: Options | None = None
    think: StrictBool | Literal["low", "medium", "high", "max"] | None = None
    tools: list[JsonValue] | None = None
    images: list[JsonValue] | None = None
    logprobs: StrictBool | None = None
    top_logprobs: StrictInt | None = None
    truncate: StrictBool | None = None
    shift: StrictBool | None = None

    def schema_wanted(self) -> Mapping[str, JsonValue] | None:
        """The JSON Schema of the answer; `"json"` is any object."""
        if self.format is None or self.format == "":
            return None
        if self.format == "json":
            return {"type": "object"}
        if isinstance(self.format, dict):
            return self.format
        raise FormatRefused(
            f'invalid format: {self.format!r:.40}; expected "json" or a valid JSON Schema object',
            param="format",
        )

    def unsupported(self) -> str | None:
        """The first thing asked for that no model here can do, as Ollama names it."""
        wanted = (
            ("tools", bool(self.tools)),
            ("thinking", bool(self.think)),
            ("vision", bool(self.images)),
            ("logprobs", bool(self.logprobs) or bool(self.top_logprobs)),
            ("truncating a prompt: shorten it", self.truncate is True),
            ("shifting the context", self.shift is True),
        )
        return next((ability for ability, asked in wanted if asked), None)


class ChatRequest(Completion):
    """A conversation to answer; none at all only loads the model."""

    messages: tuple[MessageIn, ...] = ()

    def unsupported(self) -> str | None:
        if any(message.tool_calls or message.role == "tool" for message in self.messages):
            return "tools"
        return "vision" if any(message.images for message in self.messages) else super().unsupported()


class GenerateRequest(Completion):
    """A text to answer, or with `raw` to continue as it stands; none at all only loads the model."""

    prompt: str = ""
    system: str = ""
    raw: StrictBool = False
    suffix: str = ""
    template: str = ""
    context: list[JsonValue] | None = None

    def unsupported(self) -> str | None:
        wanted = (
            ("insert", bool(self.suffix)),
            ("another template", bool(self.template)),
            ("`context`: use /api/chat", bool(self.context)),
        )
        return next((ability for ability, asked in wanted if asked), super().unsupported())


class ShowRequest(OllamaModel):
    """`name` is the old word for `model`."""

    model: str = ""
    name: str = ""
    verbose: StrictBool | None = None
