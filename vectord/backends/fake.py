"""An exact store in memory: the reference that the real one is compared with, and the one for tests."""

import copy
import math
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qdrant_edge import Bm25, SparseVector

from schemas.vectors import Condition, Distance, Filter, PointId, Range
from vectord.backends.bm25 import model
from vectord.backends.ids import decode_cursor, encode_cursor, stored_id
from vectord.backends.paths import Path, parse_datetime, parse_path
from vectord.backends.store import (
    Page,
    Query,
    Record,
    RoleScope,
    Scored,
    ShardInfo,
    ShardSpec,
    StoreError,
    StoreFull,
    Where,
)

Json = Any


class FakeStore:
    """Keeps shards by folder for as long as it lives, so that a daemon can be started on it again.

    While it is `full` nothing is made or written; while it is `shut` nothing is opened.
    """

    def __init__(self) -> None:
        self.full = False
        self.shut = False
        self._shards: dict[pathlib.Path, dict[PointId, Record]] = {}

    def create(self, folder: pathlib.Path, spec: ShardSpec) -> None:
        del spec
        self.check_room()
        folder.mkdir()
        (folder / "fake").write_text(str(id(folder)))
        self._shards[_identity(folder)] = {}

    def open(self, folder: pathlib.Path, spec: ShardSpec) -> "FakeShard":
        if self.shut:
            raise StoreError("the store is shut")
        try:
            records = self._shards[_identity(folder)]
        except (KeyError, OSError) as error:
            raise StoreError(f"no shard in {folder}") from error
        return FakeShard(self, spec, records)

    def check_room(self) -> None:
        """Raise `StoreFull` while there is none."""
        if self.full:
            raise StoreFull("no room is left")


def _identity(folder: pathlib.Path) -> pathlib.Path:
    """The folder may be renamed between create and open; its inode stays."""
    return pathlib.Path(str((folder / "fake").stat().st_ino))


class FakeShard:
    def __init__(self, store: FakeStore, spec: ShardSpec, records: dict[PointId, Record]) -> None:
        self._store = store
        self._spec = spec
        self._records = records
        self._lock = threading.Lock()
        self._bm25: Bm25 = model()

    def upsert(self, records: Sequence[Record]) -> None:
        self._store.check_room()
        with self._lock:
            self._records.update({record.id: copy.deepcopy(record) for record in records})

    def delete(self, ids: Sequence[PointId]) -> None:
        self._store.check_room()
        with self._lock:
            for key in ids:
                self._records.pop(key, None)

    def get(self, ids: Sequence[PointId], *, with_vector: bool) -> list[Record]:
        with self._lock:
            found = [self._records[key] for key in dict.fromkeys(ids) if key in self._records]
        return [_shown(record, with_vector=with_vector) for record in found]

    def scroll(self, where: Where, *, limit: int, cursor: str | None, with_vector: bool) -> Page:
        start = decode_cursor(cursor) if cursor is not None else None
        ordered = sorted(self._matching(where), key=lambda record: _order(stored_id(record.id)))
        if start is not None:
            ordered = [record for record in ordered if _order(stored_id(record.id)) >= _order(start)]
        page, rest = ordered[:limit], ordered[limit:]
        return Page(
            [_shown(record, with_vector=with_vector) for record in page],
            encode_cursor(stored_id(rest[0].id)) if rest else None,
        )

    def count(self, where: Where) -> int:
        return sum(1 for _ in self._matching(where))

    def search(self, query: Query, where: Where) -> list[Scored]:
        if query.text is not None:
            scored = self._by_words(query.text, where)
        else:
            assert query.vector is not None
            similarity = SIMILARITY[self._spec.distance]
            scored = [
                Scored(record, similarity(query.vector, record.vector)) for record in self._matching(where)
            ]
        best = sorted(scored, key=lambda hit: -hit.score)[: query.limit]
        return [Scored(_shown(hit.record, with_vector=query.with_vector), hit.score) for hit in best]

    def flush(self) -> None:
        """Memory has nothing to flush."""

    def optimize(self) -> None:
        """An exact scan has no index to build."""

    def info(self) -> ShardInfo:
        return ShardInfo(points=len(self._records), indexed=0)

    def close(self) -> None:
        """The records stay with the store, as they would on disk."""

    def _matching(self, where: Where) -> Iterator[Record]:
        with self._lock:
            records = list(self._records.values())
        for record in records:
            if (
                (where.ids is None or record.id in where.ids)
                and (where.scope is None or _in_scope(record, where.scope))
                and (where.filter is None or matches(where.filter, record.payload))
            ):
                yield record

    def _by_words(self, text: str, where: Where) -> list[Scored]:
        corpus = {
            record.id: _weights(self._bm25.embed_document(record.text))
            for record in self._matching(Where(scope=where.scope))
            if record.text is not None
        }
        terms = self._bm25.embed_query(text).indices
        rarity = {term: _idf(len(corpus), sum(term in words for words in corpus.values())) for term in terms}
        hits = []
        for record in self._matching(where):
            words = corpus.get(record.id, {})
            if any(term in words for term in terms):
                hits.append(Scored(record, sum(rarity[term] * words.get(term, 0.0) for term in terms)))
        return hits


def _shown(record: Record, *, with_vector: bool) -> Record:
    return Record(
        record.id,
        list(record.vector) if with_vector else [],
        record.text,
        record.role,
        record.role_key,
        copy.deepcopy(record.payload),
    )


def _order(stored: object) -> tuple[bool, str | int]:
    """Numbers first, then the hashed ids: the order of the real store."""
    return (False, stored) if isinstance(stored, int) else (True, str(stored))


def _in_scope(record: Record, scope: RoleScope) -> bool:
    return record.role_key in scope.keys if record.role_key is not None else scope.without_role


# --- scores -----------------------------------------------------------------------------------


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return _dot(a, b) / math.sqrt(_dot(a, a) * _dot(b, b))


def _nearness(a: Sequence[float], b: Sequence[float]) -> float:
    return -math.dist(a, b)


SIMILARITY: dict[Distance, Callable[[Sequence[float], Sequence[float]], float]] = {
    "cosine": _cosine,
    "dot": _dot,
    "euclid": _nearness,
}


def _weights(vector: SparseVector) -> dict[int, float]:
    return dict(zip(vector.indices, vector.values, strict=True))


def _idf(documents: int, with_term: int) -> float:
    return math.log(1 + (documents - with_term + 0.5) / (with_term + 0.5))


# --- filters ----------------------------------------------------------------------------------


def matches(node: Filter | Condition, payload: dict[str, Json]) -> bool:
    """Whether a payload passes a filter: the meaning that every store must give it."""
    if isinstance(node, Condition):
        return _test(node, payload)
    return (
        all(matches(inner, payload) for inner in node.must)
        and (not node.should or any(matches(inner, payload) for inner in node.should))
        and not any(matches(inner, payload) for inner in node.must_not)
    )


def _test(condition: Condition, payload: dict[str, Json]) -> bool:
    found = list(_values(parse_path(condition.key), payload))
    if condition.exists is not None:
        return condition.exists == any(value is not None and value != [] for value in found)
    scalars = [item for value in found for item in (value if isinstance(value, list) else [value])]
    if condition.range is not None:
        bounds = condition.range
        return any(_within(bounds, item) for item in scalars)
    wanted = condition.any if condition.any is not None else [condition.match]
    return any(_same(item, value) for item in scalars for value in wanted)


def _values(path: Path, value: Json) -> Iterator[Json]:
    if not path:
        yield value
        return
    if not isinstance(value, dict) or path[0].name not in value:
        return
    inner = value[path[0].name]
    if not path[0].each:
        yield from _values(path[1:], inner)
    elif isinstance(inner, list):
        for item in inner:
            yield from _values(path[1:], item)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(a: Json, b: Json) -> bool:
    if _is_number(a) and _is_number(b):
        return bool(a == b)
    return type(a) is type(b) and isinstance(a, str | bool) and a == b


def _within(bounds: Range, item: Json) -> bool:
    limits = (bounds.gt, bounds.gte, bounds.lt, bounds.lte)
    if any(isinstance(limit, str) for limit in limits):
        moment = parse_datetime(item) if isinstance(item, str) else None
        return moment is not None and _between(moment, *(_moment(limit) for limit in limits))
    return _is_number(item) and _between(item, *(None if isinstance(x, str) else x for x in limits))


def _moment(limit: float | str | None) -> float | None:
    return parse_datetime(limit) if isinstance(limit, str) else None


def _between(value: float, gt: float | None, gte: float | None, lt: float | None, lte: float | None) -> bool:
    return (
        (gt is None or value > gt)
        and (gte is None or value >= gte)
        and (lt is None or value < lt)
        and (lte is None or value <= lte)
    )
