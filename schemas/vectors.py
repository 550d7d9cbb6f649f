"""What is said about collections: points, filters, searches, the role catalogue, the gate."""

import base64
import binascii
import sys
from array import array
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictFloat,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
    model_validator,
)

from schemas.base import SAFE_INTEGER_MAX, JsonObject, Measure, Model, Timestamp

FILTER_DEPTH_MAX: Final = 16
"""How deep filters may nest; a plain condition list has depth 1."""

FILTER_CONDITIONS_MAX: Final = 1024
"""How many conditions and nested filters one filter may have, all levels together."""

EF_MAX: Final = 4096
"""The widest that a search may have the index look."""

CollectionName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
PointId = (
    Annotated[str, StringConstraints(min_length=1, max_length=256)]
    | Annotated[int, Field(ge=0, lt=2**53, strict=True)]
)
"""A string or a whole number; `5` and `"5"` are two different points."""

SafeInt = Annotated[int, Field(ge=-SAFE_INTEGER_MAX, le=SAFE_INTEGER_MAX, strict=True)]
Number = SafeInt | StrictFloat


def numbers_of(encoded: str) -> list[float]:
    """The numbers of a vector that was sent as base64. Raises ValueError for what is none."""
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raw = b""
    if not raw or len(raw) % 4:
        raise ValueError("a vector is a list of numbers, or base64 of little-endian float32 numbers")
    numbers = array("f", raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _as_numbers(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    return numbers_of(value) if isinstance(value, str) else handler(value)


VectorIn = Annotated[
    Annotated[list[StrictFloat], Field(min_length=1)],
    WrapValidator(_as_numbers, json_schema_input_type=list[StrictFloat] | str),
]
"""A list of numbers, or base64 of little-endian float32 numbers, which is read many times faster."""

Distance = Literal["cosine", "dot", "euclid"]
Durability = Literal["memory", "wal", "fsync"]
IndexKind = Literal["keyword", "integer", "float", "bool", "datetime"]
EngineName = Literal["edge", "lance", "qdrant"]
Scalar = str | StrictBool | SafeInt | StrictFloat


class Range(Model):
    """Bounds on numbers, or on date-times (ISO 8601; without an offset they are UTC). At least one."""

    gt: Number | str | None = None
    gte: Number | str | None = None
    lt: Number | str | None = None
    lte: Number | str | None = None

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        bounds = [bound for bound in (self.gt, self.gte, self.lt, self.lte) if bound is not None]
        if not bounds:
            raise ValueError("a range needs at least one of gt, gte, lt, lte")
        if len({isinstance(bound, str) for bound in bounds}) == 2:
            raise ValueError("the bounds of a range are all numbers or all date-times")
        return self


class Condition(Model):
    """One test of one payload field; exactly one of `match`, `any`, `range`, `exists`.

    `key` is a path such as `city`, `address.city` or `shifts[].city` (any element). On a list, a test
    holds when it holds for one element. Numbers are equal by value (5 is 5.0), never to strings or
    booleans. A field that is null or an empty list does not exist.
    """

    key: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    match: Scalar | None = None
    any: Annotated[list[Scalar], Field(min_length=1, max_length=1024)] | None = None
    range: Range | None = None
    exists: StrictBool | None = None

    @model_validator(mode="after")
    def _has_one_test(self) -> Self:
        given = (self.match, self.any, self.range, self.exists)
        if len(self.model_fields_set - {"key"}) != 1 or all(test is None for test in given):
            raise ValueError("a condition has exactly one of match, any, range, exists")
        return self

    @model_serializer(mode="wrap")
    def _only_the_test(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


def _as_clause(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Tell the two apart by their keys, so that an error names the field and not every alternative."""
    if isinstance(value, dict):
        kind = Condition if "key" in value else Filter
        return kind.model_validate(value)
    return handler(value)


Clause = Annotated["Condition | Filter", WrapValidator(_as_clause)]


class Filter(Model):
    """All of `must`, at least one of `should`, none of `must_not`. They nest; an empty one says nothing."""

    must: list[Clause] = []
    should: list[Clause] = []
    must_not: list[Clause] = []


def _bounded(value: Any) -> Any:
    """Refuse deep or wide filters before anything recurses into them."""
    level, seen = [value], 0
    for _ in range(FILTER_DEPTH_MAX):
        inner = [
            clause
            for item in level
            if isinstance(item, dict)
            for name in ("must", "should", "must_not")
            if isinstance(clauses := item.get(name), list)
            for clause in clauses
        ]
        seen += len(inner)
        if seen > FILTER_CONDITIONS_MAX:
            raise ValueError(f"a filter has at most {FILTER_CONDITIONS_MAX} conditions")
        if not inner:
            return value
        level = inner
    if any(isinstance(item, dict) and "key" not in item for item in level):
        raise ValueError(f"filters nest at most {FILTER_DEPTH_MAX} deep")
    return value


BoundedFilter = Annotated[Filter, BeforeValidator(_bounded)]


class CollectionSpec(Model):
    """How a collection is made. `model` or `dimension` is needed; a model brings its own dimension."""

    model: Annotated[str, Field(min_length=1)] | None = None
    dimension: Annotated[int, Field(ge=1, strict=True)] | None = None
    distance: Distance = "cosine"
    engine: EngineName | Literal["auto"] = "edge"
    gated: StrictBool = False
    hybrid: StrictBool = True
    payload_indexes: Annotated[dict[str, IndexKind], Field(max_length=32)] = {}

    @model_validator(mode="after")
    def _has_a_size(self) -> Self:
        if self.model is None and self.dimension is None:
            raise ValueError("`model` or `dimension` is needed")
        return self


class EngineAdvice(Model):
    """Whether a collection with `engine: "auto"` should move to another engine, and the figures behind it."""

    move_to: EngineName | None
    reason: str
    rows: int
    rows_max: int
    memory_bytes: int
    memory_bytes_max: int


class MigrateRequest(Model):
    """Move a collection to another engine; it is served throughout."""

    engine: EngineName


class Migration(Model):
    """How far a move is. While it is `running`, and after it `failed`, the engine of before serves.

    `recall` is the share of the 10 nearest that the new engine finds, over points sampled from the old one.
    """

    state: Literal["running", "done", "failed"]
    engine: EngineName
    done: int
    total: int
    recall: float | None = None
    error: str | None = None


class Collection(Model):
    """A collection as it stands."""

    name: str
    count: int
    dimension: int
    model: str | None
    model_digest: str | None
    distance: Distance
    engine: EngineName
    gated: bool
    hybrid: bool
    payload_indexes: dict[str, IndexKind]
    index: Literal["ready", "building"]
    bytes: int
    advice: EngineAdvice | None = None
    migration: Migration | None = None


class CollectionList(Model):
    collections: list[Collection]


class Point(Model):
    """A point to store, with `text` (embedded for you) or `vector`."""

    id: PointId
    text: str | None = None
    vector: VectorIn | None = None
    role: str | None = None
    payload: JsonObject = {}

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if self.text is None and self.vector is None:
            raise ValueError("`text` or `vector` is needed")
        return self


class UpsertRequest(Model):
    points: Annotated[list[Point], Field(min_length=1)]
    durability: Durability = "wal"


class UpsertResponse(Model):
    upserted: int
    durability: Durability


Part = Literal["payload", "text", "vector"]


class PointSelector(Model):
    """Points by `ids` or by `filter`; `role` where the collection is gated."""

    ids: Annotated[list[PointId], Field(min_length=1)] | None = None
    filter: BoundedFilter | None = None
    role: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.ids is not None and self.filter is not None:
            raise ValueError("`ids` and `filter` exclude each other")
        return self


class GetRequest(PointSelector):
    """Points to read, with the parts named in `with`."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    with_: Annotated[list[Part], Field(alias="with")] = ["payload", "text"]


class ScrollRequest(GetRequest):
    """A page of points in the order of their stored ids; `cursor` is the one of the page before."""

    limit: Annotated[int, Field(ge=1, strict=True)] = 100
    cursor: Annotated[str, StringConstraints(max_length=64)] | None = None


class StoredPoint(Model):
    id: PointId
    role: str | None = None
    text: str | None = None
    payload: JsonObject | None = None
    vector: list[float] | None = None


class PointsResponse(Model):
    points: list[StoredPoint]
    cursor: str | None = None


class DeleteResponse(Model):
    deleted: int


class CountResponse(Model):
    count: int


Mode = Literal["dense", "sparse", "hybrid"]


class Weights(Model):
    """How much each side of a hybrid search counts in the fusion; they need not add up to anything."""

    dense: Annotated[Measure, Field(ge=0, le=1000)] = 1.0
    sparse: Annotated[Measure, Field(ge=0, le=1000)] = 1.0

    @model_validator(mode="after")
    def _one_counts(self) -> Self:
        if not self.dense and not self.sparse:
            raise ValueError("one of the weights is above 0")
        return self


class SearchRequest(Model):
    """A search for the `k` nearest.

    `dense` compares vectors and takes `text` or `vector`; `sparse` compares words (BM25) and takes
    `text`; `hybrid` fuses both by rank and takes `text`, with a `vector` of your own if you like.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    text: Annotated[str, Field(min_length=1)] | None = None
    vector: VectorIn | None = None
    k: Annotated[int, Field(ge=1, strict=True)] = 10
    mode: Mode = "dense"
    weights: Weights | None = None
    filter: BoundedFilter | None = None
    role: str | None = None
    exact: StrictBool = False
    ef: (
        Annotated[
            int,
            Field(
                ge=1,
                le=EF_MAX,
                strict=True,
                description="How widely the index looks: more of the nearest are found, in more time.",
            ),
        ]
        | None
    ) = None
    score_min: Number | None = None
    with_: Annotated[list[Part], Field(alias="with")] = ["payload", "text"]

    @model_validator(mode="after")
    def _has_a_query(self) -> Self:
        if self.mode == "dense" and (self.text is None) == (self.vector is None):
            raise ValueError("exactly one of `text` and `vector` is needed")
        if self.mode == "sparse" and self.vector is not None:
            raise ValueError("a sparse search takes `text`, not `vector`")
        if self.mode != "dense" and self.text is None:
            raise ValueError(f"a {self.mode} search needs `text`")
        if self.mode != "hybrid" and self.weights is not None:
            raise ValueError("`weights` are for mode hybrid")
        return self


class Hit(Model):
    """`score`: higher is nearer; for `euclid` it is the distance with a minus sign."""

    id: PointId
    score: float
    role: str | None = None
    payload: JsonObject | None = None
    text: str | None = None
    vector: list[float] | None = None


class SearchResponse(Model):
    hits: list[Hit]
    took_ms: float
    exact: bool


class SearchBatchRequest(Model):
    """Several searches in one call. An error names the search: `searches.3.vector`."""

    searches: Annotated[list[SearchRequest], Field(min_length=1)]


class SearchBatchResponse(Model):
    """One answer for each search, in order."""

    results: list[SearchResponse]


class FacetsRequest(Model):
    """How often each value of the field `key` occurs among the points that match."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    limit: Annotated[int, Field(ge=1, le=1000, strict=True)] = 10
    filter: BoundedFilter | None = None
    role: str | None = None


class Facet(Model):
    """A value, and the number of points that have it. A point with a list has each of its elements once."""

    value: Scalar
    count: int


class FacetsResponse(Model):
    """The most frequent values first; `points` were looked at, `values` were found in all."""

    facets: list[Facet]
    values: int
    points: int


class ExportRequest(Model):
    """A page of everything in a collection; `cursor` is the one of the page before."""

    limit: Annotated[int, Field(ge=1, strict=True)] = 500
    cursor: Annotated[str, StringConstraints(max_length=64)] | None = None
    filter: BoundedFilter | None = None


class ExportedPoint(Model):
    """A point as stored; `vector` is little-endian float32 in base64."""

    id: PointId
    vector: str
    text: str | None = None
    role: str | None = None
    payload: JsonObject = {}


class ExportResponse(Model):
    points: list[ExportedPoint]
    cursor: str | None = None


SnapshotName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,127}$")]


class SnapshotRequest(Model):
    """Write a collection to a file. There is nothing to say about it."""


class Snapshot(Model):
    """A collection in one file, as it was at one moment."""

    name: str
    collection: str
    created: Timestamp
    points: int
    bytes: int
    sha256: str


class SnapshotList(Model):
    snapshots: list[Snapshot]


class RestoreRequest(Model):
    """Make a collection of a snapshot. `collection` says whose it is, where that is another one.

    `engine` is the one that the collection had, unless given.
    """

    snapshot: SnapshotName
    collection: CollectionName | None = None
    engine: EngineName | None = None


class ReembedRequest(Model):
    """Embed every text again, by another model or by the collection's own as it is now."""

    model: Annotated[str, Field(min_length=1)] | None = None


class ReembedState(Model):
    """How far it is. While it is `running` the vectors of before are searched, also after it `failed`."""

    state: Literal["running", "done", "failed"]
    model: str
    done: int
    total: int
    error: str | None = None


class RetrieveRequest(Model):
    """One question to several collections at once."""

    query: Annotated[str, Field(min_length=1)]
    collections: Annotated[list[CollectionName], Field(min_length=1, max_length=16)]
    role: str | None = None
    k: Annotated[int, Field(ge=1, strict=True)] = 5
    filter: BoundedFilter | None = None
    mode: Mode = "dense"
    weights: Weights | None = None

    @model_validator(mode="after")
    def _weights_have_two_sides(self) -> Self:
        if self.mode != "hybrid" and self.weights is not None:
            raise ValueError("`weights` are for mode hybrid")
        return self


class RetrievedHit(Model):
    collection: str
    id: PointId
    score: float
    role: str | None
    text: str | None
    payload: JsonObject


class DroppedHit(Model):
    collection: str
    id: PointId
    role: str | None
    reason: str


class Gate(Model):
    """What the role gate did: how many hits it checked, and which it did not let through."""

    role: str | None
    canonical_role: str | None
    checked: int
    dropped: list[DroppedHit]


class RetrieveResponse(Model):
    hits: list[RetrievedHit]
    gate: Gate


RoleName = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Role(Model):
    """A job role, the other names it goes by, and the roles whose points it may also see."""

    name: RoleName
    aliases: Annotated[list[RoleName], Field(max_length=256)] = []
    compatible: Annotated[list[RoleName], Field(max_length=256)] = []


class RoleCatalogue(Model):
    """Every job role there is. An empty catalogue knows none, and then a name stands for itself."""

    roles: Annotated[list[Role], Field(max_length=4096)]


class Sweep(Model):
    """The settings to try, one after another."""

    ef: Annotated[
        list[Annotated[int, Field(ge=1, le=EF_MAX, strict=True)]], Field(min_length=1, max_length=16)
    ] = [32, 64, 128, 256]


class BenchmarkRequest(Model):
    """Ask a collection for what is near to its own points, with each setting and exactly.

    `target_recall` chooses the fastest setting that reaches it; with `apply`, searches use it from then on.
    """

    queries: Annotated[int, Field(ge=1, le=2000, strict=True)] = 200
    k: Annotated[int, Field(ge=1, le=100, strict=True)] = 10
    sweep: Sweep = Sweep()
    filter: BoundedFilter | None = None
    role: str | None = None
    concurrency: Annotated[int, Field(ge=1, le=16, strict=True)] = 1
    target_recall: Annotated[float, Field(gt=0, le=1)] | None = None
    apply: StrictBool = False

    @model_validator(mode="after")
    def _has_a_target_to_apply(self) -> Self:
        if self.apply and self.target_recall is None:
            raise ValueError("`apply` needs `target_recall`")
        return self


class Timing(Model):
    """Times of searches in the store, without HTTP; queries a second with as many callers as were asked."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    queries_per_s: float


class BenchmarkedSetting(Timing):
    ef: int
    recall: float


class BenchmarkResponse(Model):
    """`recall` is the share of the `k` truly nearest that were found.

    `ef` is the setting in use; `build_s` how long the last rebuild of the index took, if there was one since
    the start; `rss_bytes` the memory of the process that holds the collection, other collections included.
    """

    collection: str
    engine: str
    points: int
    dimension: int
    selectivity: float
    queries: int
    k: int
    concurrency: int
    settings: list[BenchmarkedSetting]
    exact: Timing
    best: BenchmarkedSetting | None
    ef: int | None
    build_s: float | None
    rss_bytes: int | None
    disk_bytes: int
