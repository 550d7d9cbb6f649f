"""What `chatd.toml` says of providers, aliases, prices and limits: read, checked whole, kept fresh."""

from chatd.engine.config.keeper import Keeper, Keys, Snapshot, read
from chatd.engine.config.models import (
    AliasSpec,
    AnthropicSpec,
    Breaking,
    BudgetsSpec,
    CacheSpec,
    Candidate,
    Config,
    DispatchSpec,
    GeminiSpec,
    ModelLimits,
    OllamaSpec,
    OpenAISpec,
    OpenRouterSpec,
    Price,
    ProviderSpec,
    Retries,
    Timeouts,
)
from chatd.engine.config.parse import ConfigRefused, Fault, parse
from chatd.engine.config.prices import cost_usd

__all__ = [
    "AliasSpec",
    "AnthropicSpec",
    "Breaking",
    "BudgetsSpec",
    "CacheSpec",
    "Candidate",
    "Config",
    "ConfigRefused",
    "DispatchSpec",
    "Fault",
    "GeminiSpec",
    "Keeper",
    "Keys",
    "ModelLimits",
    "OllamaSpec",
    "OpenAISpec",
    "OpenRouterSpec",
    "Price",
    "ProviderSpec",
    "Retries",
    "Snapshot",
    "Timeouts",
    "cost_usd",
    "parse",
    "read",
]
