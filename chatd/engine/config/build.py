"""Makes a provider from what the configuration says of it."""

from chatd.backends import (
    AnthropicProvider,
    Bounds,
    Dialect,
    GeminiProvider,
    OllamaProvider,
    OpenAICompatibleProvider,
    OpenRouterProvider,
    Provider,
    Upstream,
    bearer,
)
from chatd.engine.config.keeper import Keys
from chatd.engine.config.models import AnthropicSpec, GeminiSpec, OllamaSpec, OpenAISpec, ProviderSpec


class Builder:
    """`bounds` hold for all, but for the time to connect. `ollama_url` is where Ollama is unless said."""

    def __init__(self, bounds: Bounds, ollama_url: str) -> None:
        self._bounds = bounds
        self._ollama_url = ollama_url

    def __call__(self, name: str, spec: ProviderSpec, keys: Keys) -> Provider:
        upstream = self._upstream(name, spec, keys)
        match spec:
            case OllamaSpec():
                return OllamaProvider(upstream, keep_alive=spec.keep_alive, lacks=spec.lacks)
            case AnthropicSpec():
                return AnthropicProvider(
                    upstream,
                    api_version=spec.api_version,
                    tokens_max_default=spec.tokens_max_default,
                    lacks=spec.lacks,
                )
            case GeminiSpec():
                return GeminiProvider(upstream, lacks=spec.lacks)
            case OpenAISpec():
                return OpenAICompatibleProvider(upstream, _dialect(spec))
        return OpenRouterProvider(upstream, Dialect(reasoning_field="reasoning", lacks=spec.lacks))

    def _upstream(self, name: str, spec: ProviderSpec, keys: Keys) -> Upstream:
        header = {"anthropic": b"x-api-key", "gemini": b"x-goog-api-key"}.get(spec.type)
        return Upstream(
            name,
            spec.base_url or self._ollama_url,
            keys=[[(header, key.encode())] if header else bearer(key) for key in keys],
            headers=[
                (header_name.encode(), value.get_secret_value().encode("latin-1"))
                for header_name, value in spec.headers.items()
            ],
            bounds=Bounds(
                connect_s=spec.timeouts.connect_s,
                short_s=self._bounds.short_s,
                line_bytes_max=self._bounds.line_bytes_max,
                answer_bytes_max=self._bounds.answer_bytes_max,
            ),
        )


def _dialect(spec: OpenAISpec) -> Dialect:
    return Dialect(
        developer_role=spec.developer_role,
        stream_usage=spec.stream_usage,
        tokens_field=spec.tokens_field,
        response_format=spec.response_format,
        reasoning_field=spec.reasoning_field,
        lacks=spec.lacks,
    )
