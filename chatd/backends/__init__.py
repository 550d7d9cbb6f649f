"""What `chatd` calls: providers of models, real and fake."""

from chatd.backends.anthropic import AnthropicProvider
from chatd.backends.fake import FakeProvider, Step
from chatd.backends.gemini import GeminiProvider
from chatd.backends.ollama import OllamaProvider
from chatd.backends.openai_compatible import Dialect, OpenAICompatibleProvider
from chatd.backends.openrouter import OpenRouterProvider
from chatd.backends.provider import (
    UNKNOWN_USAGE,
    Completion,
    Delta,
    Gathered,
    Lack,
    ModelInfo,
    Provider,
    ToolCallDelta,
    pieces_of,
    without,
)
from chatd.backends.upstream import Bounds, Upstream, bearer

__all__ = [
    "UNKNOWN_USAGE",
    "AnthropicProvider",
    "Bounds",
    "Completion",
    "Delta",
    "Dialect",
    "FakeProvider",
    "Gathered",
    "GeminiProvider",
    "Lack",
    "ModelInfo",
    "OllamaProvider",
    "OpenAICompatibleProvider",
    "OpenRouterProvider",
    "Provider",
    "Step",
    "ToolCallDelta",
    "Upstream",
    "bearer",
    "pieces_of",
    "without",
]
