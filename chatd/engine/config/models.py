"""The tables of `chatd.toml` with their defaults. What one says of another is checked in `parse`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr, StringConstraints

from schemas.base import Model
from services.settings import BaseUrl, OllamaUrl

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""What providers and aliases are called; never with a slash, which parts a provider from its model."""

ModelId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}/.{1,256}$")]
"""`provider/model`."""

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$", to_lower=True)]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
Pointer = Annotated[str, StringConstraints(pattern=r"^(/[^/]+)+$")]
"""An RFC 6901 pointer to a count in a provider's usage."""

Param = Literal[
    "n",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "seed",
    "stop",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
]

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Usd = Annotated[float, Field(ge=0, le=1e9)]


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Variables = Annotated[tuple[Variable, ...], BeforeValidator(_listed)]
Files = Annotated[tuple[Path, ...], BeforeValidator(_listed)]


class Timeouts(Model):
    """Seconds. `idle_s` is the longest silence between two tokens of a stream."""

    connect_s: Seconds = 2.0
    first_token_s: Seconds = 110.0
    idle_s: Seconds = 60.0
    total_s: Seconds = 600.0


class Retries(Model):
    """How often one candidate is tried before the next one is, and the wait between."""

    attempts_max: Annotated[int, Field(ge=1, le=10)] = 2
    backoff_min_s: Seconds = 0.5
    backoff_max_s: Seconds = 5.0


class ModelLimits(Model):
    """What one model of a provider may be asked for; nothing said is no limit of its own."""

    concurrency_max: Count | None = None
    rpm: Count | None = None
    tpm: Count | None = None


class _Provider(Model):
    """What every provider can be told. `lacks` names parameters that its server does not honour."""

    key_env: Variables = ()
    key_file: Files = ()
    headers: dict[HeaderName, SecretStr] = Field(default_factory=dict)
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    concurrency_max: Count = 64
    waiting_max: Annotated[int, Field(ge=0, le=1_000_000)] = 256
    waiting_timeout_s: Seconds = 30.0
    rpm: Count | None = None
    tpm: Count | None = None
    on_disconnect: Literal["cancel", "drain"] = "cancel"
    lacks: tuple[Param, ...] = ()
    models: dict[str, ModelLimits] = Field(default_factory=dict)


class OllamaSpec(_Provider):
    """Ollama here or, with a key and `base_url = "https://ollama.com"`, its cloud."""

    type: Literal["ollama"]
    base_url: OllamaUrl | None = Field(default=None, description="`OLLAMA_HOST` unless given.")
    keep_alive: str = "30m"


class OpenAISpec(_Provider):
    """Any server of OpenAI's chat completions; the last five say where it differs.

    `response_format` is the strictest form that the server itself holds answers to: with less than
    `json_schema`, the schema is put into the prompt, and the answer is checked all the same.
    `reasoning_field` is where it wants its earlier thinking back, if it does.
    """

    type: Literal["openai"]
    base_url: BaseUrl = "https://api.openai.com/v1"
    developer_role: bool = True
    stream_usage: bool = True
    tokens_field: Literal["as_given", "max_tokens", "max_completion_tokens"] = "as_given"
    response_format: Literal["json_schema", "json_object", "none"] = "json_schema"
    reasoning_field: Literal["reasoning", "reasoning_content"] | None = None


class OpenRouterSpec(_Provider):
    type: Literal["openrouter"]
    base_url: BaseUrl = "https://openrouter.ai/api/v1"


class AnthropicSpec(_Provider):
    """`tokens_max_default` is sent where the caller names no limit, since this API demands one."""

    type: Literal["anthropic"]
    base_url: BaseUrl = "https://api.anthropic.com"
    api_version: Annotated[str, StringConstraints(pattern=r"^20\d\d-\d\d-\d\d$")] = "2026-10-21"
    tokens_max_default: Count = 16_384


class GeminiSpec(_Provider):
    type: Literal["gemini"]
    base_url: BaseUrl = "https://generativelanguage.googleapis.com/v1beta"


ProviderSpec = Annotated[
    OllamaSpec | OpenAISpec | OpenRouterSpec | AnthropicSpec | GeminiSpec, Field(discriminator="type")
]


class Candidate(Model):
    """A model that may serve an alias. Weights count with `strategy = "weighted"` alone."""

    model: ModelId
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0


def _candidate(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


class AliasSpec(Model):
    """A name for an ordered choice of models. The fallbacks replace the candidates where they apply."""

    candidates: Annotated[
        tuple[Annotated[Candidate, BeforeValidator(_candidate)], ...], Field(min_length=1, max_length=32)
    ]
    strategy: Literal["ordered", "weighted", "least_busy", "fastest"] = "ordered"
    fallbacks_context: Annotated[tuple[ModelId, ...], Field(max_length=32)] = ()
    fallbacks_policy: Annotated[tuple[ModelId, ...], Field(max_length=32)] = ()
    hedge_first_token_ms: Annotated[int, Field(ge=1, le=600_000)] | None = None


class Price(Model):
    """US dollars for a million of what the pointer counts; below zero it is a discount on another count.

    A count that is missing makes the cost unknown, unless it is `optional`: then it is none.
    """

    usd_per_million: Annotated[float, Field(ge=-1e6, le=1e6)]
    optional: bool = False


def _price(value: Any) -> Any:
    return {"usd_per_million": value} if isinstance(value, int | float) else value


class BudgetsSpec(Model):
    """US dollars a day (UTC) for each key; `keys` gives some of them their own."""

    usd_a_day: Usd | None = None
    keys: dict[str, Usd] = Field(default_factory=dict)
    unknown_cost: Literal["allow", "refuse"] = "allow"
    reserve_completion_tokens: Count = 4096


class CacheSpec(Model):
    """Whole answers, given again for exactly the same request of the same key."""

    enabled: bool = False
    ttl_s: Seconds = 3600.0
    entries_max: Count = 10_000
    bytes_max: Count = 64 * 1024 * 1024


class Breaking(Model):
    """When a model of a provider is left alone: after so many failures running, for so long."""

    failures_max: Count = 5
    open_s: Seconds = 30.0
    open_max_s: Seconds = 300.0


class DispatchSpec(Model):
    """`attempts_max` is for one request, over all its candidates.

    A bare model name goes to `default_provider`.
    """

    attempts_max: Annotated[int, Field(ge=1, le=32)] = 4
    default_provider: Name = "ollama"


class Config(Model):
    providers: dict[Name, ProviderSpec] = Field(default_factory=dict)
    aliases: dict[Name, AliasSpec] = Field(default_factory=dict)
    prices: dict[ModelId, dict[Pointer, Annotated[Price, BeforeValidator(_price)]]] = Field(
        default_factory=dict
    )
    budgets: BudgetsSpec = BudgetsSpec()
    cache: CacheSpec = CacheSpec()
    breaker: Breaking = Breaking()
    dispatch: DispatchSpec = DispatchSpec()

    def price_of(self, provider: str, model: str) -> Mapping[str, Price] | None:
        """The prices of a model, or those of all its provider's models; None where there are none."""
        return self.prices.get(f"{provider}/{model}") or self.prices.get(f"{provider}/{ALL_MODELS}")


ALL_MODELS: Final = "*"
