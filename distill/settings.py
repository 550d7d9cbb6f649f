"""What `distill` can be told."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.settings import BaseUrl, DaemonSettings


class Settings(DaemonSettings):
    model_config = SettingsConfigDict(env_prefix="DISTILL_")

    port: int = Field(3104, ge=1, le=65535, description="Port to listen on.")
    writer_id: str = Field(
        "",
        pattern=r"^[a-z0-9]{0,16}$",
        description="Name of this writer in segment names, so that logs of several machines can lie in one "
        "folder; 1-16 characters of [a-z0-9], or empty.",
    )
    segment_bytes_max: int = Field(
        256 * 1024 * 1024, ge=4096, description="Bytes of a log segment; a fuller one is sealed."
    )
    lines_max: int = Field(10_000, ge=1, description="Lines in one request; beyond it the answer is 400.")
    depth_max: int = Field(
        64, ge=8, le=128, description="Levels of nesting in a record; beyond it the record is refused."
    )
    group_bytes_max: int = Field(
        4 * 1024 * 1024,
        ge=4096,
        description="Bytes that concurrent requests may put into one write and fsync.",
    )
    queue_bytes_max: int = Field(
        64 * 1024 * 1024,
        ge=4096,
        description="Bytes that may wait to be written; beyond it the answer is 429.",
    )
    notes_max: int = Field(
        1000, ge=1, description="Verdicts and feedback that one run, or one episode, may collect."
    )
    disk_free_bytes_min: int = Field(
        256 * 1024 * 1024,
        ge=0,
        description="Free bytes on the data disk below which the daemon is not ready.",
    )
    page_items_max: int = Field(1000, ge=1, description="Items on one page of a list.")
    page_scan_max: int = Field(
        20_000, ge=1, description="Records that a filtered page of evidence may look at before it ends."
    )
    review_queue_max: int = Field(
        200_000,
        ge=1,
        description="Waiting pieces of evidence that are put in order for reviewers, about 150 bytes each; "
        "further ones come up as those are decided.",
    )
    life_bytes_max: int = Field(
        1024 * 1024 * 1024,
        ge=0,
        description="Bytes of datasets, and of replays, that are searched for what became of one run; the "
        "newest come first.",
    )
    processes: int = Field(
        0,
        ge=0,
        le=256,
        description="Processes that a stage works in; 0 means as many as there are processors.",
    )
    inline_bytes_max: int = Field(
        4 * 1024 * 1024,
        ge=0,
        description="Stages over no more bytes than this start no processes: that would take longer.",
    )
    shard_bytes: int = Field(
        8 * 1024 * 1024,
        ge=4096,
        description="Bytes of a source that make up one shard of evidence. Another value makes other shards.",
    )
    line_bytes_max: int = Field(
        16 * 1024 * 1024,
        ge=4096,
        description="Longest line of a source, in bytes; longer ones are quarantined unread.",
    )
    rules: Path | None = Field(
        None, description="File of the scorer's rules; without one, the shipped `scoring.toml` applies."
    )
    chatd_url: BaseUrl = Field(
        "http://127.0.0.1:3103", description="Where chatd answers, which replays put their tasks to."
    )
    vectord_url: BaseUrl = Field(
        "http://127.0.0.1:3102", description="Where vectord answers, which holds earlier work as context."
    )
    embed_model: str = Field(
        "all-minilm",
        min_length=1,
        description="Model by which earlier work is indexed and found, where a job names none.",
    )
    validators_url: BaseUrl = Field(
        "http://127.0.0.1:3105", description="Where validators answers, which judges recorded answers again."
    )
    replay_timeout_s: float = Field(
        900.0, gt=0, description="Seconds that one task of a replay may take with all its attempts."
    )
    replay_concurrency_max: int = Field(
        64, ge=1, le=1024, description="Tasks that a replay may work on at a time, whatever it asks for."
    )
    cassette_bytes_max: int = Field(
        4 * 1024 * 1024 * 1024,
        ge=4096,
        description="Bytes of one cassette, and of the journal of one replay.",
    )
    jobs_kept_max: int = Field(
        100, ge=1, description="Jobs whose outcome is remembered; older ones are forgotten."
    )
