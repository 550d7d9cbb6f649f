"""What `chatd` can be told."""

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.settings import BaseUrl, DaemonSettings, OllamaUrl


class Settings(DaemonSettings):
    model_config = SettingsConfigDict(env_prefix="CHATD_")

    port: int = Field(3103, ge=1, le=65535, description="Port to listen on.")
    body_bytes_max: int = Field(
        8 * 1024 * 1024,
        ge=1024,
        description="Largest request body, in bytes; with its answer it must still fit into one record.",
    )
    config: Path | None = Field(
        None,
        description="A `chatd.toml` with providers, aliases, limits and prices (see docs/providers.md). "
        "Without it, the providers are those that the variables here name.",
    )
    config_poll_s: float = Field(
        1.0,
        gt=0,
        description="Seconds between two looks at whether that file, or a file of keys, has changed.",
    )
    ollama_url: OllamaUrl = Field(
        "http://127.0.0.1:11434", validation_alias="OLLAMA_HOST", description="Where Ollama answers."
    )
    ollama_keep_alive: str = Field("30m", description="How long Ollama keeps a model loaded after a call.")
    openai_base_url: BaseUrl | None = Field(
        None,
        description="An OpenAI-compatible API up to and including its version, such as https://host/v1; "
        "when set, the provider `openai` exists.",
    )
    openai_api_key: SecretStr | None = Field(None, description="Bearer token for that API.")
    distill_url: BaseUrl = Field("http://127.0.0.1:3104", description="Where distill takes run records.")
    validators_url: BaseUrl = Field("http://127.0.0.1:3105", description="Where validators answers.")
    vectord_url: BaseUrl = Field("http://127.0.0.1:3102", description="Where vectord answers.")

    upstream_concurrency_max: int = Field(
        64, ge=1, description="Calls to one provider under way at once; the others wait."
    )
    upstream_waiting_max: int = Field(
        256, ge=0, description="Calls that may wait for one provider; beyond it the answer is 429."
    )
    connect_timeout_s: float = Field(2.0, gt=0, description="Seconds to connect to a provider.")
    first_token_timeout_s: float = Field(
        110.0,
        gt=0,
        description="Seconds until the first token of a stream, in which the model may have to be loaded; "
        "below the 120 s after which LangChain gives up.",
    )
    idle_timeout_s: float = Field(60.0, gt=0, description="Seconds between two tokens of a stream.")
    total_timeout_s: float = Field(600.0, gt=0, description="Seconds for one call to a provider.")
    peer_timeout_s: float = Field(
        30.0, gt=0, description="Seconds for one call to validators, vectord or distill."
    )
    write_timeout_s: float = Field(
        60.0, gt=0, description="Seconds for which a caller may leave its stream unread before it is dropped."
    )
    line_bytes_max: int = Field(
        1024 * 1024, ge=1024, description="Longest line of a provider's stream, in bytes."
    )
    answer_bytes_max: int = Field(
        4 * 1024 * 1024,
        ge=1024,
        description="Largest text of a provider's answer, in bytes. With what frames it, an answer may have "
        "eight times that.",
    )
    iterate_tokens_max: int = Field(
        1024,
        ge=1,
        description="Tokens of one attempt of /v1/iterate; a small model may otherwise never stop.",
    )
    iterate_total_tokens_max: int = Field(
        65536,
        ge=1,
        description="Tokens, of prompts and answers, of all attempts at one artifact; when they are used up, "
        "no further attempt is made.",
    )
    iterate_timeout_s: float = Field(
        600.0,
        gt=0,
        description="Seconds for all attempts at one artifact, by /v1/iterate or for a chat with `validate`.",
    )
    notes_chars_max: int = Field(
        6000, ge=0, description="Characters of retrieved texts put before the model by /v1/iterate."
    )
    spool_bytes_max: int = Field(
        256 * 1024 * 1024,
        ge=0,
        description="Disk space for records that distill has not acknowledged; when it is used up, "
        "new calls are refused with 503 `spool_full`.",
    )
    spool_segment_bytes_max: int = Field(
        4 * 1024 * 1024,
        ge=1,
        description="Size in bytes at which a spool file is closed and a new one begun.",
    )
    spool_batch_bytes_max: int = Field(
        1024 * 1024,
        ge=1,
        description="Bytes of records handed to distill at once (a longer record goes alone).",
    )
    spool_linger_s: float = Field(
        0.2, ge=0, description="Seconds for which records are gathered before they are handed to distill."
    )
    spool_retry_max_s: float = Field(
        10.0, gt=0, description="Longest wait, in seconds, before distill is tried again."
    )
    rejected_bytes_max: int = Field(
        16 * 1024 * 1024,
        ge=1,
        description="Bytes at which the file of refused records is set aside; one older file is kept.",
    )


def environment(name: str) -> str | None:
    """A variable that the configuration names, such as one that holds a provider's key."""
    return os.environ.get(name)
