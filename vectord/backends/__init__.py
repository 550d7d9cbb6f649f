"""What holds the vectors: the store's protocol, qdrant-edge on disk, and an exact one in memory."""

from vectord.backends.edge import EdgeStore
from vectord.backends.engines import Engines
from vectord.backends.fake import FakeStore
from vectord.backends.paths import Path, parse_datetime, parse_path
from vectord.backends.prompt import Done, Found, PromptShard, Rendered
from vectord.backends.store import (
    EngineMissing,
    EngineUnreachable,
    Page,
    Query,
    Record,
    RoleScope,
    Scored,
    Shard,
    ShardInfo,
    ShardSpec,
    Store,
    StoreError,
    StoreFull,
    StoreLost,
    Where,
)
from vectord.backends.workers import WorkerStore

__all__ = [
    "Done",
    "EdgeStore",
    "EngineMissing",
    "EngineUnreachable",
    "Engines",
    "FakeStore",
    "Found",
    "Page",
    "Path",
    "PromptShard",
    "Query",
    "Record",
    "Rendered",
    "RoleScope",
    "Scored",
    "Shard",
    "ShardInfo",
    "ShardSpec",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreLost",
    "Where",
    "WorkerStore",
    "parse_datetime",
    "parse_path",
]
