"""The engines there are: which of them can be used here, and which one holds a given shard."""

import importlib
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import cast

from schemas.vectors import EngineName
from vectord.backends.store import EngineMissing, OutsideStore, Shard, ShardSpec, Store

LOCATOR: Mapping[EngineName, str] = {"lance": "lance.json", "qdrant": "qdrant.json"}
"""The file in a shard's folder that says where its points are."""


@dataclass(frozen=True, slots=True)
class LanceOptions:
    """How datasets are kept and searched. Without a `url` each lies in its collection's own folder.

    Up to `flat_rows_max` rows, or rows that pass a filter, are compared one by one instead of by the index.
    """

    url: str = ""
    index: str = "IVF_PQ"
    nprobes: int = 40
    refine: int = 40
    flat_rows_max: int = 20_000
    cache_bytes_max: int = 512 * 1024**2
    versions_keep_s: float = 600.0
    retries_max: int = 20


@dataclass(frozen=True, slots=True)
class QdrantOptions:
    """Where the cluster is, and how collections are made there. Their names begin with `prefix`."""

    url: str = ""
    api_key: str | None = None
    timeout_s: int = 30
    prefix: str = "stillhouse-"
    shards: int = 1
    replicas: int = 1


Outside = Mapping[EngineName, Callable[[], OutsideStore]]


class Engines:
    """One store out of several. An engine is loaded when it is first asked for.

    `outside` makes the stores of the other engines, and raises `EngineMissing` when one cannot be used.
    """

    def __init__(self, edge: Store, outside: Outside) -> None:
        self._edge = edge
        self._outside = outside
        self._loaded: dict[EngineName, OutsideStore] = {}

    def create(self, folder: pathlib.Path, spec: ShardSpec) -> None:
        self._of(spec.engine).create(folder, spec)

    def open(self, folder: pathlib.Path, spec: ShardSpec) -> Shard:
        return self._of(spec.engine).open(folder, spec)

    def drop(self, folder: pathlib.Path) -> None:
        """Remove what the shard in `folder` keeps elsewhere. The folder itself is the caller's."""
        for engine, locator in LOCATOR.items():
            if (folder / locator).exists():
                self._load(engine).drop(folder)

    def durable(self, engine: EngineName) -> bool:
        """Whether `flush` makes writes survive a power loss."""
        return engine == "edge" or self._load(engine).durable()

    def check(self, engine: EngineName) -> None:
        """Raise `EngineMissing` unless collections can be made with it."""
        self._of(engine)

    def _of(self, engine: EngineName) -> Store:
        return self._edge if engine == "edge" else self._load(engine)

    def _load(self, engine: EngineName) -> OutsideStore:
        if engine not in self._loaded:
            if engine not in self._outside:
                raise EngineMissing(f"this vectord has no engine {engine!r}")
            self._loaded[engine] = self._outside[engine]()
        return self._loaded[engine]

    def close(self) -> None:
        for store in self._loaded.values():
            store.close()


def lance_store(options: LanceOptions) -> OutsideStore:
    return cast("OutsideStore", _module("lance").LanceStore(options))


def qdrant_store(options: QdrantOptions) -> OutsideStore:
    module = _module("qdrant")
    if not options.url:
        raise EngineMissing("the engine 'qdrant' needs a cluster: set VECTORD_QDRANT_URL")
    return cast("OutsideStore", module.QdrantStore(lambda: module.connect(options), options))


def _module(engine: EngineName) -> ModuleType:
    """The adapter, whose library is an extra."""
    try:
        return importlib.import_module(f"vectord.backends.{engine}")
    except ModuleNotFoundError as error:
        raise EngineMissing(
            f"the engine {engine!r} is not installed: pip install 'stillhouse[vectord-{engine}]'"
        ) from error
