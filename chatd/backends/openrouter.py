"""OpenRouter: OpenAI's chat completions, with reasoning, cost and refusals of its own."""

from collections.abc import Mapping
from typing import Any

from chatd.backends.failures import CONTENT_POLICY
from chatd.backends.openai_compatible import OpenAICompatibleProvider
from schemas.base import JsonObject
from services.errors import InvalidRequest, PlatformError


class OpenRouterProvider(OpenAICompatibleProvider):
    """Only hosts that honour all parameters of a request are used; the cost is the one OpenRouter tells."""

    api = "openrouter"

    def _extras(self) -> Mapping[str, Any]:
        return {"provider": {"require_parameters": True}, "usage": {"include": True}}

    def _failure(self, status: int, error: Any, headers: Mapping[str, str]) -> PlatformError:
        metadata = error.get("metadata") if isinstance(error, dict) else None
        if status == 403 and isinstance(metadata, dict) and "reasons" in metadata:  # its moderation's refusal
            return InvalidRequest(
                f"{self.name} flagged the input: {error.get('message')}"[:500],
                code=CONTENT_POLICY,
                param="messages",
            )
        return super()._failure(status, error, headers)

    def _cost(self, usage: JsonObject) -> float | None:
        cost = usage.get("cost")
        return (
            float(cost)
            if isinstance(cost, int | float) and not isinstance(cost, bool) and cost >= 0
            else None
        )
