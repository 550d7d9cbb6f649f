"""What `chatd` calls: providers of models, real and fake."""

from chatd.backends.fake import FakeProvider, Step
from chatd.backends.ollama import OllamaProvider
from chatd.backends.openai_compatible import OpenAICompatibleProvider, OutsideTransport
from chatd.backends.provider import (
    UNKNOWN_USAGE,
    Completion,
    Delta,
    Gathered,
    ModelInfo,
    Provider,
    ToolCallDelta,
)

__all__ = [
    "UNKNOWN_USAGE",
    "Completion",
    "Delta",
    "FakeProvider",
    "Gathered",
    "ModelInfo",
    "OllamaProvider",
    "OpenAICompatibleProvider",
    "OutsideTransport",
    "Provider",
    "Step",
    "ToolCallDelta",
]
