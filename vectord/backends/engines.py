"""The engines there are: which of them can be used here, and which one holds a given shard."""

import pathlib
from collections.abc import Callable, Mapping

from schemas.vectors import EngineName
from vectord.backends.store import EngineMissing, OutsideStore, Shard, ShardSpec, Store

LOCATOR: Mapping[EngineName, str] = {"lance": "lance.json", "qdrant": "qdrant.json"}
"""The file in a shard's folder that says where its points are."""


class Engines:
    """One store out of several. An engine is loaded when it is first asked for.

    `outside` makes the stores of the other engines, and raises `EngineMissing` when one cannot be used.
    """

    def __init__(
        self, edge: Store, outside: Mapping[EngineName, Callable[[], OutsideStore]] | None = None
    ) -> None:
        self._edge = edge
        self._outside = outside or {}
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
