"""Shards as collections of a Qdrant cluster: for what outgrows one machine.

The points are the same as those of `edge`, and so are filters and scores: a payload's searchable form under
tags of types, word vectors made here. The server acknowledges what is in its log on disk (`wait`); it syncs
that log at an interval of its own and cannot be told to, so nothing more than `wal` is claimed.
"""

import contextlib
import pathlib
import secrets
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, cast

import httpx
import numpy as np
import orjson
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from schemas.vectors import Condition, Distance, Filter, PointId, Range
from services import files
from vectord.backends import projection, wording
from vectord.backends.bm25 import model
from vectord.backends.engines import QdrantOptions
from vectord.backends.ids import StoredId, decode_cursor, encode_cursor, stored_id
from vectord.backends.paths import Path, parse_datetime, parse_path
from vectord.backends.store import (
    EngineUnreachable,
    Page,
    Query,
    Record,
    RoleScope,
    Scored,
    ShardInfo,
    ShardSpec,
    ShardTaken,
    StoreError,
    Where,
)

LOCATOR: Final = "qdrant.json"
DENSE: Final = "dense"
WORDS: Final = "words"
ROLE_KEY: Final = "role_key"
KEPT: Final = ["id", "json", "text", "role", ROLE_KEY]
DISTANCES: Final[dict[Distance, models.Distance]] = {
    "cosine": models.Distance.COSINE,
    "dot": models.Distance.DOT,
    "euclid": models.Distance.EUCLID,
}
SCHEMA_OF_TAG: Final = {
    projection.STRING: models.PayloadSchemaType.KEYWORD,
    projection.NUMBER: models.PayloadSchemaType.FLOAT,
    projection.BOOLEAN: models.PayloadSchemaType.KEYWORD,
    projection.DATETIME: models.PayloadSchemaType.FLOAT,
}


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except (ResponseHandlingException, httpx.HTTPError) as error:
        raise EngineUnreachable("the Qdrant server (VECTORD_QDRANT_URL) does not answer") from error
    except (ApiException, ValueError) as error:
        raise StoreError(f"{doing}: {error}") from error


def connect(options: QdrantOptions) -> QdrantClient:
    return QdrantClient(
        url=options.url, api_key=options.api_key, timeout=options.timeout_s, check_compatibility=False
    )


class QdrantStore:
    def __init__(self, connect: Callable[[], QdrantClient], options: QdrantOptions) -> None:
        """`connect` is called once; the local mode of the client serves as well as a cluster."""
        self._client = connect()
        self._options = options

    def create(self, folder: pathlib.Path, spec: ShardSpec) -> None:
        folder.mkdir()
        name = f"{self._options.prefix}{spec.name}-{secrets.token_hex(6)}"
        files.replace(folder / LOCATOR, orjson.dumps({"name": name}))
        with _translated("cannot make the collection"):
            if self._client.collection_exists(name):
                raise ShardTaken(f"the Qdrant server has a collection {name!r} already")
            self._client.create_collection(
                name,
                vectors_config={
                    DENSE: models.VectorParams(size=spec.dimension, distance=DISTANCES[spec.distance])
                },
                sparse_vectors_config={WORDS: models.SparseVectorParams()} if spec.hybrid else None,
                shard_number=self._options.shards,
                replication_factor=self._options.replicas,
            )
            indexed = {ROLE_KEY: models.PayloadSchemaType.KEYWORD}
            for key, kind in spec.payload_indexes.items():
                tag = projection.TAG_OF_KIND[kind]
                indexed[projection.json_path(parse_path(key), tag)] = SCHEMA_OF_TAG[tag]
            if spec.hybrid:
                indexed[WORDS] = models.PayloadSchemaType.INTEGER
            for path, schema in indexed.items():
                self._client.create_payload_index(name, path, field_schema=schema, wait=True)

    def open(self, folder: pathlib.Path, spec: ShardSpec) -> "QdrantShard":
        try:
            name = self._named(folder)
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"{folder} does not say which collection it is") from error
        # A server that is away now may come back; until then each call says that it is away.
        with contextlib.suppress(EngineUnreachable), _translated("cannot open the collection"):
            if not self._client.collection_exists(name):
                raise StoreError(f"the Qdrant server has no collection {name!r}")
        return QdrantShard(self._client, name, spec)

    def drop(self, folder: pathlib.Path) -> None:
        with _translated("cannot delete the collection"):
            self._client.delete_collection(self._named(folder))

    def durable(self) -> bool:
        return False

    def close(self) -> None:
        self._client.close()

    def _named(self, folder: pathlib.Path) -> str:
        return str(orjson.loads((folder / LOCATOR).read_bytes())["name"])


class QdrantShard:
    def __init__(self, client: QdrantClient, name: str, spec: ShardSpec) -> None:
        self._client = client
        self._name = name
        self._spec = spec
        self._bm25 = model()

    def upsert(self, records: Sequence[Record]) -> None:
        points = [self._point(record) for record in {record.id: record for record in records}.values()]
        with _translated("cannot write points"):
            self._client.upsert(self._name, points, wait=True)

    def delete(self, ids: Sequence[PointId]) -> None:
        with _translated("cannot delete points"):
            self._client.delete(self._name, [_id(stored_id(item)) for item in ids], wait=True)

    def get(self, ids: Sequence[PointId], *, with_vector: bool) -> list[Record]:
        wanted = list(dict.fromkeys(ids))
        with _translated("cannot read points"):
            found = self._client.retrieve(
                self._name,
                [_id(stored_id(item)) for item in wanted],
                with_payload=KEPT,
                with_vectors=[DENSE] if with_vector else False,
            )
        by_id = {record.id: record for record in map(_record, found)}
        return [by_id[item] for item in wanted if item in by_id]

    def scroll(self, where: Where, *, limit: int, cursor: str | None, with_vector: bool) -> Page:
        offset = _id(decode_cursor(cursor)) if cursor is not None else None
        with _translated("cannot scroll"):
            found, following = self._client.scroll(
                self._name,
                _where(where),
                limit=limit,
                offset=offset,
                with_payload=KEPT,
                with_vectors=[DENSE] if with_vector else False,
            )
        after = None if following is None else encode_cursor(_stored(following))
        return Page([_record(item) for item in found], after)

    def count(self, where: Where) -> int:
        with _translated("cannot count"):
            return self._client.count(self._name, _where(where), exact=True).count

    def search(self, query: Query, where: Where) -> list[Scored]:
        if query.text is not None:
            return self._by_words(query.text, query, where)
        assert query.vector is not None
        params = models.SearchParams(exact=query.exact, hnsw_ef=query.ef)
        found = self._query(list(query.vector), DENSE, query, where, params)
        sign = -1.0 if self._spec.distance == "euclid" else 1.0
        return [Scored(_record(item), sign * item.score) for item in found]

    def flush(self) -> None:
        """The server syncs its log by itself (`QdrantStore.durable`)."""

    def optimize(self) -> None:
        """The server builds its indexes by itself."""

    def info(self) -> ShardInfo:
        with _translated("cannot read the collection's state"):
            indexed = self._client.get_collection(self._name).indexed_vectors_count or 0
            return ShardInfo(points=self.count(Where()), indexed=indexed)

    def close(self) -> None:
        """The connection is the store's."""

    def _by_words(self, text: str, query: Query, where: Where) -> list[Scored]:
        """By BM25: the weights of words among what the scope lets through go into the query's vector."""
        asked = list(dict.fromkeys(self._bm25.embed_query(text).indices))
        if not asked:
            return []
        texts = self._count_words(None, where.scope)
        idf = {word: wording.idf(texts, self._count_words(word, where.scope)) for word in asked}
        vector = models.SparseVector(indices=list(idf), values=list(idf.values()))
        found = self._query(vector, WORDS, query, where, None)
        return [Scored(_record(item), item.score) for item in found]

    def _count_words(self, word: int | None, scope: RoleScope | None) -> int:
        """Texts that have the word, or texts at all, among what the scope lets through."""
        there: models.Condition = (
            models.FieldCondition(key=WORDS, match=models.MatchValue(value=word))
            if word is not None
            else models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key="text"))])
        )
        must = [there] if scope is None else [there, _scope(scope)]
        with _translated("cannot count words"):
            return self._client.count(self._name, models.Filter(must=must), exact=True).count

    def _query(
        self,
        vector: list[float] | models.SparseVector,
        using: str,
        query: Query,
        where: Where,
        params: models.SearchParams | None,
    ) -> list[models.ScoredPoint]:
        with _translated("cannot search"):
            return self._client.query_points(
                self._name,
                query=vector,
                using=using,
                limit=query.limit,
                query_filter=_where(where),
                search_params=params,
                with_payload=KEPT,
                with_vectors=[DENSE] if query.with_vector else False,
            ).points

    def _point(self, record: Record) -> models.PointStruct:
        vectors: dict[str, Any] = {DENSE: np.asarray(record.vector, np.float32).tolist()}
        payload: dict[str, Any] = {
            "id": record.id,
            "json": orjson.dumps(record.payload).decode(),
            projection.ROOT: projection.project(record.payload),
        }
        if self._spec.hybrid and record.text is not None:
            document = self._bm25.embed_document(record.text)
            vectors[WORDS] = models.SparseVector(indices=list(document.indices), values=list(document.values))
            payload[WORDS] = list(document.indices)
        given = {"text": record.text, "role": record.role, ROLE_KEY: record.role_key}
        payload |= {name: value for name, value in given.items() if value is not None}
        return models.PointStruct(id=_id(stored_id(record.id)), vector=vectors, payload=payload)


def _id(stored: StoredId) -> int | str:
    return stored if isinstance(stored, int) else str(stored)


def _stored(found: object) -> StoredId:
    return found if isinstance(found, int) else uuid.UUID(str(found))


def _record(found: models.Record | models.ScoredPoint) -> Record:
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


# --- filters ----------------------------------------------------------------------------------

NOTHING: Final = models.HasIdCondition(has_id=[])


def _where(where: Where) -> models.Filter | None:
    must: list[models.Condition] = []
    if where.scope is not None:
        must.append(_scope(where.scope))
    if where.ids is not None:
        must.append(models.HasIdCondition(has_id=[_id(stored_id(item)) for item in where.ids]))
    if where.filter is not None:
        must.append(_filter(where.filter))
    return models.Filter(must=must) if must else None


def _scope(scope: RoleScope) -> models.Condition:
    allowed: list[models.Condition] = []
    if scope.keys:
        allowed.append(models.FieldCondition(key=ROLE_KEY, match=models.MatchAny(any=sorted(scope.keys))))
    if scope.without_role:
        allowed.append(_empty(ROLE_KEY))
    return models.Filter(should=allowed) if allowed else NOTHING


def _filter(node: Filter) -> models.Filter:
    """An empty list is left out: it is no demand at all."""
    return models.Filter(
        must=[_clause(inner) for inner in node.must] or None,
        should=[_clause(inner) for inner in node.should] or None,
        must_not=[_clause(inner) for inner in node.must_not] or None,
    )


def _clause(node: Filter | Condition) -> models.Condition:
    if isinstance(node, Filter):
        return _filter(node)
    path = parse_path(node.key)
    if node.exists is not None:
        empty = _empty(projection.json_path(path))
        return models.Filter(must_not=[empty]) if node.exists else models.Filter(must=[empty])
    if node.range is not None:
        return _range(path, node.range)
    return _one_of(path, node.any if node.any is not None else [node.match])


def _empty(key: str) -> models.Condition:
    return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))


def _one_of(path: Path, values: Sequence[object]) -> models.Condition:
    strings = [value for value in values if isinstance(value, str)]
    booleans = [projection.boolean(value) for value in values if isinstance(value, bool)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    tests: list[models.Condition] = [
        models.FieldCondition(key=projection.json_path(path, tag), match=models.MatchAny(any=wanted))
        for tag, wanted in ((projection.STRING, strings), (projection.BOOLEAN, booleans))
        if wanted
    ]
    at_number = projection.json_path(path, projection.NUMBER)
    tests += [
        models.FieldCondition(key=at_number, range=models.Range(gte=value, lte=value))
        for value in map(projection.number, numbers)
    ]
    return models.Filter(should=tests)


def _range(path: Path, bounds: Range) -> models.Condition:
    given = {"gt": bounds.gt, "gte": bounds.gte, "lt": bounds.lt, "lte": bounds.lte}
    of_dates = any(isinstance(bound, str) for bound in given.values())
    tag = projection.DATETIME if of_dates else projection.NUMBER
    limits = {name: _bound(bound) for name, bound in given.items() if bound is not None}
    return models.FieldCondition(key=projection.json_path(path, tag), range=models.Range(**limits))


def _bound(bound: float | str) -> float:
    value = parse_datetime(bound) if isinstance(bound, str) else bound
    if value is None:
        raise ValueError(f"{bound!r} is not a date-time")
    return projection.number(value)
