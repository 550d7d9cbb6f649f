"""The models behind `modeld`: what is asked of one, the real ones, and fakes."""

from modeld.backends.catalogue import installed_shelf
from modeld.backends.errors import (
    ContextExceeded,
    FormatRefused,
    GenerationFailed,
    ModelNotFound,
    NotANumber,
    NotCapable,
    ServerBusy,
    WeightsRefused,
)
from modeld.backends.fakes import FakeChat, FakeEmbedder, fake_shelf
from modeld.backends.files import ModelFile
from modeld.backends.llama import LlamaChat
from modeld.backends.onnx import OnnxEmbedder
from modeld.backends.protocols import (
    Card,
    ChatModel,
    Embedder,
    Emit,
    Message,
    Offer,
    Report,
    Sampling,
    Shelf,
    Tokens,
    Vectors,
    Weights,
)

__all__ = [
    "Card",
    "ChatModel",
    "ContextExceeded",
    "Embedder",
    "Emit",
    "FakeChat",
    "FakeEmbedder",
    "FormatRefused",
    "GenerationFailed",
    "LlamaChat",
    "Message",
    "ModelFile",
    "ModelNotFound",
    "NotANumber",
    "NotCapable",
    "Offer",
    "OnnxEmbedder",
    "Report",
    "Sampling",
    "ServerBusy",
    "Shelf",
    "Tokens",
    "Vectors",
    "Weights",
    "WeightsRefused",
    "fake_shelf",
    "installed_shelf",
]
