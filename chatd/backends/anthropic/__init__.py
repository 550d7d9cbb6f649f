"""Anthropic's Messages API."""

from chatd.backends.anthropic.provider import AnthropicProvider

__all__ = ["AnthropicProvider"]
