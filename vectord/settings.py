"""What vectord can be told."""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from schemas.vectors import EF_MAX
from services.settings import BaseUrl, DaemonSettings


class Settings(DaemonSettings):
    model_config = SettingsConfigDict(env_prefix="VECTORD_")

    port: int = Field(3102, ge=1, le=65535, description="Port to listen on.")
    body_bytes_max: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        description="Largest request body, in bytes; beyond it the answer is 413. Vectors are long as JSON.",
    )
    embedd_url: BaseUrl = Field("http://127.0.0.1:3101", description="Where embedd answers.")
    embed_batch_max: int = Field(
        128,
        ge=1,
        le=2048,
        description="Texts sent to embedd in one call; an upsert makes as many as it needs.",
    )
    collections_max: int = Field(
        256, ge=1, description="Collections there may be; each holds files open, and some memory."
    )
    points_max: int = Field(
        1000, ge=1, le=10_000, description="Points, or ids, in one call; also the largest page of a scroll."
    )
    k_max: int = Field(1000, ge=1, le=10_000, description="Hits that one search may ask for.")
    retrieve_k_max: int = Field(
        100,
        ge=1,
        le=1000,
        description="Hits that one retrieve may ask for; it asks each collection for as many.",
    )
    dimension_max: int = Field(8192, ge=1, le=65536, description="Numbers in one vector.")
    text_bytes_max: int = Field(
        65_536,
        ge=1,
        description="UTF-8 bytes in one text, stored or asked; more is cut off by models anyway.",
    )
    payload_bytes_max: int = Field(65_536, ge=2, description="Bytes of one point's payload, as JSON.")
    workers: int = Field(
        2,
        ge=1,
        le=32,
        description="Processes that hold the collections; an index is rebuilt by a further one.",
    )
    store_timeout_s: float = Field(
        600.0,
        gt=0,
        description="Seconds that one store call may take; rebuilding a large index is the longest.",
    )
    threads: int = Field(
        16,
        ge=1,
        le=64,
        description="Engine calls under way at once, over all collections; each has a thread.",
    )
    waiting_max: int = Field(
        256, ge=0, description="Engine calls that may wait for a thread; beyond it the answer is 429."
    )
    reopen_interval_s: float = Field(
        30.0, gt=0, description="Seconds between attempts to open collections that could not be opened."
    )
    optimize_after_points: int = Field(
        10_000,
        ge=100,
        description="Points written to a collection before its index is rebuilt in the background.",
    )
    search_ef: int = Field(
        256,
        ge=1,
        le=EF_MAX,
        description="How widely the index is searched where neither a search nor a benchmark says it."
        " More finds more of the nearest, in more time.",
    )
    benchmark_timeout_s: float = Field(
        120.0, gt=0, description="Seconds that a benchmark may take; beyond, nothing is answered."
    )
    batch_max: int = Field(64, ge=1, le=1024, description="Searches in one call of `search/batch`.")
    facet_points_max: int = Field(
        200_000,
        ge=1,
        description="Points that one call of `facets` may look at; it reads each, so filter beyond that.",
    )
    snapshots_max: int = Field(
        16, ge=1, description="Snapshots kept of one collection; delete one to make another."
    )
    snapshot_bytes_max: int = Field(
        64 * 1024**3,
        ge=1024,
        description="Bytes that a snapshot may hold when it is unpacked; a larger one is not restored.",
    )
    recall_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of the searches that are run again exactly, to measure recall; 0 turns it off.",
    )
    recall_interval_s: float = Field(
        0.5,
        ge=0,
        description="Seconds between two such measurements, at least: an exact search reads every vector.",
    )
    canary_interval_s: float = Field(
        60.0,
        gt=0,
        description="Seconds between two rounds of questions that the role gate has to withstand.",
    )
    canary_probes_max: int = Field(
        32, ge=0, description="Questions in one such round, over all gated collections; 0 turns it off."
    )
    lance_url: str = Field(
        "",
        description="Folder or object store (`s3://bucket/path`) that lance collections lie in, for several"
        " vectords to share; empty: each in its own folder of the data.",
    )
    lance_index: Literal["IVF_PQ", "IVF_HNSW_SQ"] = Field(
        "IVF_PQ", description="Index of lance collections: least memory, or less work for a search."
    )
    lance_nprobes: int = Field(
        40, ge=1, le=10_000, description="Parts of a lance index that a search reads; more finds more."
    )
    lance_refine: int = Field(
        40, ge=1, le=1000, description="Vectors read in full for each hit wanted of a lance collection."
    )
    lance_flat_rows_max: int = Field(
        20_000,
        ge=256,
        description="Rows, or rows that pass a filter, up to which lance compares each instead of its index.",
    )
    lance_cache_bytes_max: int = Field(
        512 * 1024**2, ge=1024**2, description="Bytes of indexes that lance keeps in memory, all together."
    )
    lance_versions_keep_s: float = Field(
        600.0,
        ge=1,
        description="Seconds that old versions of a lance dataset are kept for readers that began with them.",
    )
    lance_commits_max: int = Field(
        64, ge=1, description="Writes to a lance collection before its small files are merged."
    )
    qdrant_url: str = Field(
        "", description="Where a Qdrant cluster answers, for collections with the engine `qdrant`."
    )
    qdrant_api_key: SecretStr | None = Field(None, description="Its API key.")
    qdrant_prefix: str = Field(
        "stillhouse-", description="What the names of our collections there begin with."
    )
    qdrant_timeout_s: int = Field(30, ge=1, description="Seconds that one call to it may take.")
    qdrant_shards: int = Field(1, ge=1, le=1024, description="Shards of a new collection there.")
    qdrant_replicas: int = Field(1, ge=1, le=16, description="Replicas of each of its shards.")
    edge_rows_max: int = Field(
        5_000_000, ge=1, description="Rows above which `engine: auto` advises to leave edge for lance."
    )
    edge_memory_bytes_max: int = Field(
        8 * 1024**3, ge=1, description="Bytes of memory of one collection above which it advises the same."
    )
    lance_rows_max: int = Field(
        50_000_000, ge=1, description="Rows above which it advises to leave lance for qdrant."
    )
    rebuild_changes_max: int = Field(
        1_000_000,
        ge=1,
        description="Ids written while a collection moves to another engine that are remembered; beyond it"
        " the move fails.",
    )
    rebuild_recall_min: float = Field(
        0.95, ge=0, le=1, description="Recall@10 that a new index must reach before a collection moves to it."
    )
    disk_free_bytes_min: int = Field(
        256 * 1024 * 1024,
        ge=0,
        description="Free bytes on the data disk below which nothing is written; the answer is 503.",
    )
