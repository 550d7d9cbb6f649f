"""What `modeld` can be told, from the environment, under the prefix `MODELD_`."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.settings import DaemonSettings


class Settings(DaemonSettings):
    """Frozen settings of `modeld`. Each request can change how long its own model stays loaded."""

    model_config = SettingsConfigDict(env_prefix="MODELD_")

    port: int = Field(11435, ge=1, le=65535, description="Port to listen on.")
    keep_alive_s: float = Field(
        300.0, description="Seconds that an idle model stays loaded by default; negative: for ever."
    )
    embed_threads: int = Field(
        2, ge=1, le=64, description="Forward passes at the same time, a thread each; at best the core count."
    )
    embed_queue_max: int = Field(
        512, ge=0, description="Embedding calls that may wait; beyond it the answer is 503 `server busy`."
    )
    embed_inputs_max: int = Field(2048, ge=1, description="Most texts in one embedding call.")
    batch_items_max: int = Field(
        16, ge=1, le=256, description="Most texts in one forward pass; more gained nothing when measured."
    )
    batch_tokens_max: int = Field(
        2048, ge=256, description="Most tokens, padding included, in one forward pass; bounds its memory."
    )
    # On two idle cores two threads give 1.4 times the tokens of one, and on two busy ones a twentieth of
    # them, since llama.cpp's threads spin while they wait for one another.
    chat_threads: int = Field(
        1, ge=1, le=64, description="Threads that generate; more than 1 only where cores stand idle."
    )
    chat_slots: int = Field(2, ge=1, le=16, description="Generations at the same time.")
    chat_queue_max: int = Field(
        64,
        ge=0,
        description="Generations that may wait for a slot; beyond it the answer is 503 `server busy`.",
    )
    context_tokens: int = Field(
        4096, ge=256, le=8192, description="Tokens of prompt and answer together, for each chat slot."
    )
