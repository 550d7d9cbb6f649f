"""What `embedd` can be told."""

from typing import Any, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from schemas.embeddings import InputType
from services.settings import BaseUrl, DaemonSettings, OllamaUrl, OllamaUrls, RedisUrl

MEGABYTE = 1024 * 1024


class Settings(DaemonSettings):
    model_config = SettingsConfigDict(env_prefix="EMBEDD_")

    port: int = Field(3101, ge=1, le=65535, description="Port to listen on.")

    ollama_url: OllamaUrl = Field(
        "http://127.0.0.1:11434", validation_alias="OLLAMA_HOST", description="Where Ollama answers."
    )
    ollama_urls: OllamaUrls = Field(
        (),
        description="Several Ollama servers, separated by commas, in place of `OLLAMA_HOST`."
        " Work goes to the one with the least under way.",
    )
    ollama_options: dict[str, Any] = Field(
        {}, description="Options sent with every call to Ollama, as JSON. Part of what a cached vector is of."
    )
    openai_url: BaseUrl | None = Field(
        None, description="An OpenAI-compatible server, with its path (`https://…/v1`); models `openai/NAME`."
    )
    openai_api_key: SecretStr | None = Field(None, description="The key for it.")
    keep_alive: str = Field("30m", description="How long Ollama keeps a model loaded after a call.")
    prefixes: dict[str, dict[InputType, str]] = Field(
        {},
        description="Task prefixes by model, as JSON:"
        ' `{"nomic-embed-text": {"query": "search_query: ", "document": "search_document: "}}`.'
        " A request asks for one by its `input_type`.",
    )

    cache_bytes_max: int = Field(
        256 * MEGABYTE, ge=0, description="Memory for cached vectors, in bytes, overhead included."
    )
    cache_policy: Literal["lru", "lfu"] = Field(
        "lru", description="What leaves a full cache: the least recently or the least frequently used."
    )
    cache_ttl_s: float = Field(
        0.0, ge=0, description="Seconds that a cached vector may be used; 0: until it is pushed out."
    )
    fragment_bytes_max: int = Field(
        64 * MEGABYTE, ge=0, description="Memory for encoded vectors of warm answers, in bytes."
    )
    warm_bytes_max: int = Field(
        64 * MEGABYTE,
        ge=0,
        description="Size of the file that the hottest vectors are written to, in bytes; 0: no file.",
    )
    warm_interval_s: float = Field(
        300.0, gt=0, description="Seconds between two writes of that file; it is also written when stopping."
    )

    l2_url: RedisUrl | None = Field(
        None, description="A Valkey or Redis that replicas share vectors through (`redis://…`)."
    )
    l2_timeout_s: float = Field(0.05, gt=0, description="Seconds to wait for it before going on without.")
    l2_ttl_s: float = Field(7 * 86400.0, ge=0, description="Seconds that it keeps a vector; 0: for ever.")
    l2_pause_s: float = Field(2.0, gt=0, description="Seconds to leave it alone after it failed.")

    inputs_max: int = Field(2048, ge=1, description="Texts in one request (OpenAI's own limit).")
    tokens_max: int = Field(
        300_000, ge=1, description="Estimated tokens in one request (OpenAI's own limit, 3 characters each)."
    )
    text_chars_max: int = Field(200_000, ge=1, description="Characters in one text.")

    batch_items_max: int = Field(64, ge=1, description="Texts in one call to a backend.")
    batch_tokens_max: int = Field(16_384, ge=1, description="Estimated tokens in one call to a backend.")
    upstream_concurrency_max: int = Field(
        2, ge=1, description="Calls to one backend at once: one that it computes, one that it has ready."
    )
    waiting_max: int = Field(
        8192, ge=1, description="Texts that may wait for a backend; beyond it the answer is 429."
    )
    tries_max: int = Field(3, ge=1, description="Times that a text is tried before its caller is told.")
    busy_pause_s: float = Field(
        0.5, gt=0, description="Seconds to leave a backend alone after it said that it is busy."
    )
    probe_interval_s: float = Field(
        1.0, gt=0, description="Seconds between two looks at a backend that was set aside."
    )
    upstream_connect_timeout_s: float = Field(1.0, gt=0, description="Seconds to connect to a backend.")
    upstream_timeout_s: float = Field(
        120.0, gt=0, description="Seconds for one call to a backend, in which it may have to load the model."
    )
    look_timeout_s: float = Field(
        5.0, gt=0, description="Seconds that a backend may take to list its models before it is set aside."
    )
    digest_ttl_s: float = Field(
        5.0, ge=0, description="Seconds for which a model's digest is believed before it is asked for again."
    )

    @model_validator(mode="after")
    def _a_request_can_wait(self) -> Self:
        if self.waiting_max < self.inputs_max:
            raise ValueError("EMBEDD_WAITING_MAX must not be less than EMBEDD_INPUTS_MAX")
        return self

    @property
    def ollama(self) -> tuple[str, ...]:
        """The Ollama servers to use."""
        return self.ollama_urls or (self.ollama_url,)
