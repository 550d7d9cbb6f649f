"""The Ollama API: parse, call the engine, answer in Ollama's shapes."""

from modeld.routes.api import routes
from modeld.routes.wire import OllamaWire

__all__ = ["OllamaWire", "routes"]
