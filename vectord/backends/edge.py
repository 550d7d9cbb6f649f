"""The store on disk: one qdrant-edge shard a collection."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import orjson
import qdrant_edge as edge

from schemas.vectors import Condition, Distance, Filter, PointId, Range
from vectord.backends import generations, projection
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
    Where,
    failure,
)

DENSE: Final = "dense"
WORDS: Final = "words"
ROLE_KEY: Final = "role_key"
KEPT: Final = edge.PayloadSelector.Include(["id", "json", "text", "role", ROLE_KEY])
"""What is read back: all but the searchable form of the payload."""

DISTANCES: Final[dict[Distance, edge.Distance]] = {
    "cosine": edge.Distance.Cosine,
    "dot": edge.Distance.Dot,
    "euclid": edge.Distance.Euclid,
}
SCHEMA_OF_TAG: Final = {
    projection.STRING: edge.PayloadSchemaType.Keyword,
    projection.NUMBER: edge.PayloadSchemaType.Float,
    projection.BOOLEAN: edge.PayloadSchemaType.Keyword,
    projection.DATETIME: edge.PayloadSchemaType.Float,
}

GRAPH: Final = edge.HnswIndexConfig(m=24, ef_construct=200, full_scan_threshold=10_000)
"""More links than the engine's own 16: on GloVe the same recall at two thirds of the candidates."""
BYTES: Final = edge.ScalarQuantizationConfig(type=edge.ScalarType.Int8, always_ram=True)
"""Candidates are compared as bytes, over the whole range of values. Cutting the rarest off cost recall."""
RESCORED: Final = edge.QuantizationSearchParams(rescore=True, oversampling=2.0)
"""Twice the asked-for candidates are compared again as they were given: scores are always those."""

Clause = edge.FieldCondition | edge.IsEmptyCondition | edge.HasIdCondition | edge.Filter
EdgePayload = dict[str, Any]


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the binding raises nothing narrower, and its callers log what this says
        raise failure(doing, error) from error


class EdgeStore:
    def create(self, folder: pathlib.Path, spec: ShardSpec) -> None:
        with _translated("cannot make the shard"):
            shard = edge.EdgeShard.create(str(folder), _config(spec))
            shard.update(edge.UpdateOperation.create_field_index(ROLE_KEY, edge.PayloadSchemaType.Keyword))
            for key, kind in spec.payload_indexes.items():
                tag = projection.TAG_OF_KIND[kind]
                path = projection.json_path(parse_path(key), tag)
                shard.update(edge.UpdateOperation.create_field_index(path, SCHEMA_OF_TAG[tag]))
            shard.flush()
            shard.close()

    def open(self, folder: pathlib.Path, spec: ShardSpec) -> "EdgeShard":
        with _translated("cannot open the shard"):
            path = generations.current(folder)
            return EdgeShard(edge.EdgeShard.load(str(path), _config(spec)), spec)


def _config(spec: ShardSpec) -> edge.EdgeConfig:
    # Only vectors of length one share a range that bytes divide well.
    as_bytes = BYTES if spec.distance == "cosine" else None
    dense = edge.EdgeVectorParams(
        size=spec.dimension,
        distance=DISTANCES[spec.distance],
        hnsw_config=GRAPH,
        quantization_config=as_bytes,
    )
    return edge.EdgeConfig(
        vectors={DENSE: dense},
        max_search_threads=1,  # a second one gains nothing over two segments, and costs a hand-over each
        sparse_vectors=(
            {WORDS: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)} if spec.hybrid else None
        ),
    )


class EdgeShard:
    def __init__(self, shard: edge.EdgeShard, spec: ShardSpec) -> None:
        self._shard = shard
        self._spec = spec
        self._bm25 = model()

    def upsert(self, records: Sequence[Record]) -> None:
        with _translated("cannot write points"):
            self._shard.update(edge.UpdateOperation.upsert_points([self._point(item) for item in records]))

    def delete(self, ids: Sequence[PointId]) -> None:
        with _translated("cannot delete points"):
            self._shard.update(edge.UpdateOperation.delete_points([stored_id(item) for item in ids]))

    def get(self, ids: Sequence[PointId], *, with_vector: bool) -> list[Record]:
        wanted = list(dict.fromkeys(ids))
        with _translated("cannot read points"):
            found = self._shard.retrieve(
                [stored_id(item) for item in wanted],
                with_payload=KEPT,
                with_vector=[DENSE] if with_vector else False,
            )
        by_id = {record.id: record for record in map(_record, found)}
        return [by_id[item] for item in wanted if item in by_id]

    def scroll(self, where: Where, *, limit: int, cursor: str | None, with_vector: bool) -> Page:
        offset = decode_cursor(cursor) if cursor is not None else None
        with _translated("cannot scroll"):
            found, following = self._shard.scroll(
                edge.ScrollRequest(
                    offset=offset,
                    limit=limit,
                    filter=_where(where),
                    with_payload=KEPT,
                    with_vector=[DENSE] if with_vector else False,
                )
            )
        after = None if following is None else encode_cursor(cast("Any", following))
        return Page([_record(item) for item in found], after)

    def count(self, where: Where) -> int:
        with _translated("cannot count"):
            return self._shard.count(edge.CountRequest(exact=True, filter=_where(where)))

    def search(self, query: Query, where: Where) -> list[Scored]:
        found = self._query(query, where, KEPT)
        sign = -1.0 if self._spec.distance == "euclid" and query.text is None else 1.0
        return [Scored(_record(item), sign * item.score) for item in found]

    def search_rendered(
        self, query: Query, where: Where, parts: frozenset[str]
    ) -> list[tuple[str | None, float, bytes]]:
        """What a search by vector finds, as the fields of `Rendered`; `parts` of `payload` and `text`."""
        keys = ["id", "role"]
        if "payload" in parts:
            keys.append("json")
        if "text" in parts:
            keys.append("text")
        sign = -1.0 if self._spec.distance == "euclid" else 1.0
        found = self._query(query, where, edge.PayloadSelector.Include(keys))
        return [_rendered(item, sign * item.score) for item in found]

    def _query(self, query: Query, where: Where, kept: edge.PayloadSelector) -> Sequence[edge.ScoredPoint]:
        if query.text is not None:
            corpus = _where(Where(scope=where.scope))
            nearest = edge.Query.Nearest(self._bm25.embed_query(query.text), using=WORDS)
            # Word statistics of what the caller may not see would tell about it.
            params = edge.SearchParams(idf=edge.IdfParams(corpus=corpus) if corpus else None)
        else:
            assert query.vector is not None
            nearest = edge.Query.Nearest(list(query.vector), using=DENSE)
            params = edge.SearchParams(exact=query.exact, hnsw_ef=query.ef, quantization=RESCORED)
        with _translated("cannot search"):
            return self._shard.query(
                edge.QueryRequest(
                    limit=query.limit,
                    query=nearest,
                    filter=_where(where),
                    params=params,
                    with_payload=kept,
                    with_vector=[DENSE] if query.with_vector else False,
                )
            )

    def flush(self) -> None:
        with _translated("cannot flush"):
            self._shard.flush()

    def optimize(self) -> None:
        with _translated("cannot optimize"):
            self._shard.optimize()

    def info(self) -> ShardInfo:
        with _translated("cannot read the shard's state"):
            count = self._shard.count(edge.CountRequest(exact=True))
            return ShardInfo(points=count, indexed=self._shard.info().indexed_vectors_count)

    def close(self) -> None:
        with _translated("cannot close the shard"):
            self._shard.close()

    def _point(self, record: Record) -> edge.Point:
        vectors: dict[str, Any] = {DENSE: record.vector}
        if self._spec.hybrid and record.text is not None:
            vectors[WORDS] = self._bm25.embed_document(record.text)
        payload: EdgePayload = {
            "id": record.id,
            "json": orjson.dumps(record.payload).decode(),
            projection.ROOT: projection.project(record.payload),
        }
        given = {"text": record.text, "role": record.role, ROLE_KEY: record.role_key}
        payload |= {name: value for name, value in given.items() if value is not None}
        return edge.Point(stored_id(record.id), vectors, payload)


def _record(found: edge.Record | edge.ScoredPoint) -> Record:
    payload = found.payload or {}
    vectors = cast("dict[str, list[float]] | None", found.vector)
    return Record(
        payload["id"],
        vectors[DENSE] if vectors else [],
        payload.get("text"),
        payload.get("role"),
        payload.get(ROLE_KEY),
        orjson.loads(payload["json"]),
    )


def _rendered(found: edge.ScoredPoint, score: float) -> tuple[str | None, float, bytes]:
    payload = found.payload or {}
    parts = [b'{"id":', orjson.dumps(payload["id"]), b',"score":', orjson.dumps(score)]
    role = payload.get("role")
    if role is not None:
        parts += (b',"role":', orjson.dumps(role))
    if "json" in payload:
        parts += (b',"payload":', payload["json"].encode())
    if "text" in payload:
        parts += (b',"text":', orjson.dumps(payload["text"]))
    parts.append(b"}")
    return role, score, b"".join(parts)


# --- filters ----------------------------------------------------------------------------------

NOTHING: Final = edge.Filter(must_not=[edge.Filter()])


def _where(where: Where) -> edge.Filter | None:
    must: list[Clause] = []
    if where.scope is not None:
        must.append(_scope(where.scope))
    if where.ids is not None:
        must.append(edge.HasIdCondition({stored_id(item) for item in where.ids}) if where.ids else NOTHING)
    if where.filter is not None:
        must.append(_filter(where.filter))
    return edge.Filter(must=list(must)) if must else None


def _scope(scope: RoleScope) -> Clause:
    allowed: list[Clause] = []
    if scope.keys:
        allowed.append(edge.FieldCondition(ROLE_KEY, match=edge.MatchAny(sorted(scope.keys))))
    if scope.without_role:
        allowed.append(edge.IsEmptyCondition(ROLE_KEY))
    return edge.Filter(should=list(allowed)) if allowed else NOTHING


def _filter(node: Filter) -> edge.Filter:
    """An empty list is left out: the engine reads it as no demand at all, and so do we."""
    return edge.Filter(
        must=[_clause(inner) for inner in node.must] or None,
        should=[_clause(inner) for inner in node.should] or None,
        must_not=[_clause(inner) for inner in node.must_not] or None,
    )


def _clause(node: Filter | Condition) -> Clause:
    if isinstance(node, Filter):
        return _filter(node)
    path = parse_path(node.key)
    if node.exists is not None:
        empty = edge.IsEmptyCondition(projection.json_path(path))
        return edge.Filter(must_not=[empty]) if node.exists else edge.Filter(must=[empty])
    if node.range is not None:
        return _range(path, node.range)
    return _one_of(path, node.any if node.any is not None else [node.match])


def _one_of(path: Path, values: Sequence[object]) -> Clause:
    strings = [value for value in values if isinstance(value, str)]
    booleans = [projection.boolean(value) for value in values if isinstance(value, bool)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    tests: list[Clause] = [
        edge.FieldCondition(projection.json_path(path, tag), match=edge.MatchAny(wanted))
        for tag, wanted in ((projection.STRING, strings), (projection.BOOLEAN, booleans))
        if wanted
    ]
    at_number = projection.json_path(path, projection.NUMBER)
    tests += [
        edge.FieldCondition(at_number, range=edge.RangeFloat(gte=value, lte=value))
        for value in map(projection.number, numbers)
    ]
    return edge.Filter(should=list(tests))


def _range(path: Path, bounds: Range) -> Clause:
    given = {"gt": bounds.gt, "gte": bounds.gte, "lt": bounds.lt, "lte": bounds.lte}
    of_dates = any(isinstance(bound, str) for bound in given.values())
    tag = projection.DATETIME if of_dates else projection.NUMBER
    limits = {name: _bound(bound) for name, bound in given.items() if bound is not None}
    return edge.FieldCondition(projection.json_path(path, tag), range=edge.RangeFloat(**limits))


def _bound(bound: float | str) -> float:
    value = parse_datetime(bound) if isinstance(bound, str) else bound
    if value is None:
        raise ValueError(f"{bound!r} is not a date-time")
    return projection.number(value)
