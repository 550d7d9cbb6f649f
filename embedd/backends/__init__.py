"""What computes embeddings, and where replicas share them."""

from embedd.backends.fake import FakeBackend
from embedd.backends.ollama import OllamaBackend
from embedd.backends.openai import OpenAIBackend
from embedd.backends.protocol import Backend, BadAnswer, Computed, ItemsRefused, ModelInfo, Vectors, checked
from embedd.backends.shared import FakeSharedCache, SharedCache, ValkeyCache
from embedd.backends.transport import Transport

__all__ = [
    "Backend",
    "BadAnswer",
    "Computed",
    "FakeBackend",
    "FakeSharedCache",
    "ItemsRefused",
    "ModelInfo",
    "OllamaBackend",
    "OpenAIBackend",
    "SharedCache",
    "Transport",
    "ValkeyCache",
    "Vectors",
    "checked",
]
