"""What `validators` can be told."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.settings import DaemonSettings


class Settings(DaemonSettings):
    model_config = SettingsConfigDict(env_prefix="VALIDATORS_")

    port: int = Field(3105, ge=1, le=65535, description="Port to listen on.")
    roster: Path | None = Field(
        None, description="Parquet file of the workers; without it `fill` answers 503."
    )
    roster_poll_s: float = Field(
        1.0, gt=0, description="Seconds between looks at the files of roster and policy."
    )
    roster_timeout_s: float = Field(
        120.0, gt=0, description="Seconds that reading a roster file may take; beyond it the file is refused."
    )
    roster_bytes_max: int = Field(
        1024 * 1024 * 1024, ge=1024, description="Largest roster file that is read, in bytes."
    )
    policy: Path | None = Field(
        None, description="TOML file that replaces the shipped policy (validators/policy.toml)."
    )
    artifact_bytes_max: int = Field(
        64 * 1024, ge=256, description="Largest artifact, in bytes of JSON; beyond it the answer is 413."
    )
    schema_bytes_max: int = Field(
        64 * 1024, ge=256, description="Largest JSON Schema of the `json_schema` kind, in bytes of JSON."
    )
    schema_expansion_max: int = Field(
        100_000,
        ge=1,
        description="Subschemas that a JSON Schema may amount to once its references are followed.",
    )
    findings_max: int = Field(
        1000,
        ge=1,
        description="Findings of the `json_schema` kind that are listed; a last one tells of more.",
    )
    candidates_max: int = Field(
        2000, ge=0, description="Workers looked at in one request in search of fixes; 0 suggests none."
    )
    batch_lines_max: int = Field(10_000, ge=1, description="Lines in one batch; beyond it the answer is 413.")
    line_bytes_max: int = Field(
        512 * 1024, ge=1024, description="Bytes in one line of a batch; a longer one is answered by an error."
    )
    batches_max: int = Field(
        8, ge=1, description="Batches that are worked on at one time; beyond it the answer is 429."
    )
    threads: int = Field(
        2,
        ge=1,
        le=64,
        description="Threads for checks that are too long for the event loop.",
    )
    waiting_max: int = Field(
        256, ge=1, description="Checks that may wait for a thread; beyond it the answer is 429."
    )
