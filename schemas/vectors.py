"""What is said about collections: points, filters, searches, the role catalogue, the gate."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import JsonObject, Model

CollectionName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
PointId = (
    Annotated[str, StringConstraints(min_length=1, max_length=256)] | Annotated[int, Field(ge=0, lt=2**53)]
)
Distance = Literal["cosine", "dot", "euclid"]
Durability = Literal["memory", "wal", "fsync"]
IndexKind = Literal["keyword", "integer", "float", "bool", "datetime"]
Scalar = str | int | float | bool


class Range(Model):
    """Bounds on a number or an ISO date-time; at least one."""

    gt: float | str | None = None
    gte: float | str | None = None
    lt: float | str | None = None
    lte: float | str | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("a range needs at least one of gt, gte, lt, lte")
        return self


class Condition(Model):
    """One test of one payload field; exactly one of `match`, `any`, `range`, `exists`."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    match: Scalar | None = None
    any: Annotated[list[Scalar], Field(min_length=1, max_length=1024)] | None = None
    range: Range | None = None
    exists: bool | None = None

    @model_validator(mode="after")
    def _has_one_test(self) -> Self:
        if len(self.model_fields_set - {"key"}) != 1:
            raise ValueError("a condition has exactly one of match, any, range, exists")
        return self


class Filter(Model):
    """All of `must`, at least one of `should`, none of `must_not`. Filters nest."""

    must: list["Condition | Filter"] = []
    should: list["Condition | Filter"] = []
    must_not: list["Condition | Filter"] = []


class CollectionSpec(Model):
    """How a collection is made. `model` or `dimension` is needed; a model brings its own dimension."""

    model: Annotated[str, Field(min_length=1)] | None = None
    dimension: Annotated[int, Field(ge=1, le=65536)] | None = None
    distance: Distance = "cosine"
    engine: Literal["edge"] = "edge"
    gated: bool = False
    hybrid: bool = True
    payload_indexes: dict[str, IndexKind] = {}

    @model_validator(mode="after")
    def _has_a_size(self) -> Self:
        if self.model is None and self.dimension is None:
            raise ValueError("`model` or `dimension` is needed")
        return self


class Collection(Model):
    """A collection as it stands."""

    name: str
    count: int
    dimension: int
    model: str | None
    model_digest: str | None
    distance: Distance
    engine: str
    gated: bool
    hybrid: bool
    payload_indexes: dict[str, IndexKind]
    index: Literal["ready", "building"]
    bytes: int


class CollectionList(Model):
    collections: list[Collection]


class Point(Model):
    """A point to store, with `text` (embedded for you) or `vector`."""

    id: PointId
    text: str | None = None
    vector: list[float] | None = None
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


class PointSelector(Model):
    """Points by `ids` or by `filter`; `role` where the collection is gated."""

    ids: list[PointId] | None = None
    filter: Filter | None = None
    role: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.ids is not None and self.filter is not None:
            raise ValueError("`ids` and `filter` exclude each other")
        return self


class ScrollRequest(Model):
    filter: Filter | None = None
    role: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: str | None = None


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


class SearchRequest(Model):
    """A search by `text` or `vector` for the `k` nearest."""

    text: Annotated[str, Field(min_length=1)] | None = None
    vector: list[float] | None = None
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    mode: Literal["dense", "sparse", "hybrid"] = "dense"
    filter: Filter | None = None
    role: str | None = None
    exact: bool = False
    score_min: float | None = None
    with_: Annotated[list[Literal["payload", "text", "vector"]], Field(alias="with")] = ["payload", "text"]

    @model_validator(mode="after")
    def _has_a_query(self) -> Self:
        if (self.text is None) == (self.vector is None):
            raise ValueError("exactly one of `text` and `vector` is needed")
        return self


class Hit(Model):
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


class RetrieveRequest(Model):
    """One question to several collections at once."""

    query: Annotated[str, Field(min_length=1)]
    collections: Annotated[list[CollectionName], Field(min_length=1, max_length=16)]
    role: str | None = None
    k: Annotated[int, Field(ge=1, le=100)] = 5
    filter: Filter | None = None
    mode: Literal["dense", "sparse", "hybrid"] = "dense"


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


class Role(Model):
    """A job role, the other names it goes by, and the roles whose points it may also see."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    aliases: list[str] = []
    compatible: list[str] = []


class RoleCatalogue(Model):
    roles: list[Role]
