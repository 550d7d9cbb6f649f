"""What `embedd` can be told."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.settings import DaemonSettings, OllamaUrl


class Settings(DaemonSettings):
    model_config = SettingsConfigDict(env_prefix="EMBEDD_")

    port: int = Field(3101, ge=1, le=65535, description="Port to listen on.")
    ollama_url: OllamaUrl = Field(
        "http://127.0.0.1:11434", validation_alias="OLLAMA_HOST", description="Where Ollama answers."
    )
    cache_bytes_max: int = Field(
        256 * 1024 * 1024, ge=0, description="Memory for cached vectors, in bytes, overhead included."
    )
    inputs_max: int = Field(2048, ge=1, description="Texts in one request (OpenAI's own limit).")
    text_chars_max: int = Field(200_000, ge=1, description="Characters in one text.")
    batch_items_max: int = Field(64, ge=1, description="Texts in one call to Ollama.")
    waiting_max: int = Field(
        4096, ge=1, description="Texts that may wait for Ollama; beyond it the answer is 429."
    )
    upstream_concurrency_max: int = Field(
        4, ge=1, description="Calls to Ollama under way at once. Ollama computes one text at a time."
    )
    upstream_connect_timeout_s: float = Field(1.0, gt=0, description="Seconds to connect to Ollama.")
    upstream_timeout_s: float = Field(
        120.0, gt=0, description="Seconds for one call to Ollama, in which it may have to load the model."
    )
    digest_ttl_s: float = Field(
        5.0, ge=0, description="Seconds for which a model's digest is believed before Ollama is asked again."
    )
    keep_alive: str = Field("30m", description="How long Ollama keeps a model loaded after a call.")
