"""What `gateway` can be told."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.settings import BaseUrls, DaemonSettings, Origins, RedisUrl


class Settings(DaemonSettings):
    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    port: int = Field(3100, ge=1, le=65535, description="Port to listen on.")
    embedd_urls: BaseUrls = Field(
        ("http://127.0.0.1:3101",), description="Replicas of embedd, separated by commas."
    )
    vectord_urls: BaseUrls = Field(
        ("http://127.0.0.1:3102",), description="Replicas of vectord, separated by commas."
    )
    chatd_urls: BaseUrls = Field(
        ("http://127.0.0.1:3103",), description="Replicas of chatd, separated by commas."
    )
    distill_urls: BaseUrls = Field(
        ("http://127.0.0.1:3104",), description="Replicas of distill, separated by commas."
    )
    validators_urls: BaseUrls = Field(
        ("http://127.0.0.1:3105",), description="Replicas of validators, separated by commas."
    )
    refusals_per_s_max: int = Field(
        1000,
        ge=1,
        description="Requests without a good key that are answered a second; more of them wait their turn.",
    )
    cors_origins: Origins = Field(
        (),
        description="Origins whose pages may ask, separated by commas, or `*` for any. No other page may.",
    )
    keys_reload_interval_s: float = Field(
        1.0,
        gt=0,
        description="Seconds between two looks at the key file; a revoked key works no longer than that.",
    )
    upstream_connect_timeout_s: float = Field(1.0, gt=0, description="Seconds to connect to a daemon.")
    upstream_read_timeout_s: float = Field(
        300.0, gt=0, description="Seconds for which a daemon may be silent; a model may take long to start."
    )
    dns_interval_s: float = Field(
        5.0,
        gt=0,
        description="Seconds between two look-ups of the names in `GATEWAY_…_URLS` that stand for replicas.",
    )
    crash_wait_s: float = Field(
        1.5,
        ge=0,
        description="Seconds that requests wait for a daemon that is gone without a word, to be back.",
    )
    restart_wait_s: float = Field(
        3.0,
        ge=0,
        description="Seconds that requests wait for a daemon that is gone after it said that it would stop;"
        " most often it is being replaced. It counts where it is longer than `crash_wait_s`.",
    )
    drain_replica_s: float = Field(
        300.0,
        gt=0,
        description="Seconds that requests to a replica may still take after its name has lost its address.",
    )
    watch_interval_s: float = Field(
        0.5, gt=0, description="Seconds between two looks at whether each replica answers."
    )
    watch_timeout_s: float = Field(
        1.0,
        gt=0,
        description="Seconds for a replica to answer `/healthz`; one that does not is not asked, and gives"
        " up what it was asked, until it answers again.",
    )
    hop_answer_timeout_s: float = Field(
        2.0,
        gt=0,
        description="Seconds for embedd to begin an answer, which needs no model; then another is asked.",
    )
    upstream_concurrency_max: int = Field(
        256,
        ge=1,
        description="Requests under way at once to one replica, so that a slow daemon holds up only itself.",
    )
    upstream_waiting_max: int = Field(
        1024, ge=0, description="Requests that may wait for a replica; beyond it the answer is 429."
    )
    limits_url: RedisUrl | None = Field(
        None,
        description="A Valkey or Redis through which several gateways keep the limits of keys together"
        " (`redis://…`); each keeps its own without one, and while it does not answer.",
    )
    limits_timeout_s: float = Field(0.2, gt=0, description="Seconds for that store to answer.")
    limits_pause_s: float = Field(
        1.0, ge=0, description="Seconds for which it is not asked again after it failed."
    )
    status_timeout_s: float = Field(
        2.0,  # a daemon gives what it needs itself 1.5 s, and then says what is missing
        gt=0,
        description="Seconds for a replica to answer when `GET /v1/status` asks how it is.",
    )
    ejection_s: float = Field(
        1.0, ge=0, description="Seconds for which a replica that did not answer is passed over."
    )
