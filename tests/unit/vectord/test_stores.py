"""One suite for every store: what is written is found, and a filter means the same everywhere."""

import math
import pathlib
from collections.abc import Callable, Iterator
from multiprocessing import active_children
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from schemas.vectors import Condition, Filter
from vectord.backends import (
    EdgeStore,
    FakeStore,
    Query,
    Record,
    RoleScope,
    Shard,
    ShardSpec,
    Store,
    StoreError,
    Where,
    WorkerStore,
)
from vectord.backends.engines import LanceOptions, QdrantOptions
from vectord.backends.fake import matches
from vectord.backends.lance import LanceShard, LanceStore
from vectord.backends.qdrant import QdrantStore

pytestmark = [  # the double says once that it has no indexes
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact:UserWarning"),
]

SPEC = ShardSpec(dimension=3, distance="cosine", hybrid=True)
KEYS = ("city", "age", "a.b", "list[].x", "$s", "über uns")


@pytest.fixture(scope="module")
def workers() -> Iterator[WorkerStore]:
    workers = WorkerStore(processes=1, call_timeout_s=30)
    yield workers
    workers.close()


def qdrant() -> QdrantStore:
    """The client's own double of a server."""
    return QdrantStore(lambda: QdrantClient(":memory:"), QdrantOptions())


@pytest.fixture(params=["edge", "workers", "fake", "lance", "qdrant"])
def store(request: pytest.FixtureRequest, workers: WorkerStore) -> Store:
    made: dict[str, Callable[[], Store]] = {
        "edge": EdgeStore,
        "workers": lambda: workers,
        "fake": FakeStore,
        "lance": lambda: LanceStore(LanceOptions()),
        "qdrant": qdrant,
    }
    return made[request.param]()


@pytest.fixture
def shard(store: Store, tmp_path: pathlib.Path) -> Iterator[Shard]:
    shard = make(store, tmp_path / "shard", SPEC)
    yield shard
    shard.close()


def make(store: Store, folder: pathlib.Path, spec: ShardSpec) -> Shard:
    store.create(folder, spec)
    return store.open(folder, spec)


def point(key: str | int, vector: list[float] | None = None, **rest: Any) -> Record:
    return Record(key, vector or [1.0, 0.0, 0.0], **rest)


def ids(shard: Shard, where: Where) -> set[str | int]:
    page = shard.scroll(where, limit=1000, cursor=None, with_vector=False)
    assert page.cursor is None
    assert shard.count(where) == len(page.records)
    return {record.id for record in page.records}


def test_a_point_comes_back_as_it_was(shard: Shard) -> None:
    payload: dict[str, Any] = {
        "n": 5,
        "f": 5.0,
        "b": True,
        "none": None,
        "deep": {"$s": ["x", 1, None, {"y": [[]]}]},
        "id": "mine",
    }
    record = point("x", [0.0, 2.0, 0.0], text="hello", role="Welders", role_key="welder", payload=payload)
    shard.upsert([record])
    found = shard.get(["missing", "x", "x"], with_vector=True)
    assert len(found) == 1
    assert (found[0].id, found[0].text, found[0].role, found[0].role_key) == (
        "x",
        "hello",
        "Welders",
        "welder",
    )
    assert found[0].payload == payload
    assert isinstance(found[0].payload["f"], float)
    assert isinstance(found[0].payload["n"], int)
    assert found[0].payload["b"] is True
    assert math.isclose(found[0].vector[1] / math.hypot(*found[0].vector), 1.0)


def test_a_number_and_its_digits_are_two_points(shard: Shard) -> None:
    shard.upsert([point(5, text="number"), point("5", text="string")])
    assert [record.text for record in shard.get(["5", 5], with_vector=False)] == ["string", "number"]
    shard.delete([5])
    assert ids(shard, Where()) == {"5"}


def test_an_upsert_replaces_the_whole_point(shard: Shard) -> None:
    shard.upsert([point("x", text="old", role="a", role_key="a", payload={"city": "Ulm"})])
    shard.upsert([point("x", payload={"age": 3})])
    (found,) = shard.get(["x"], with_vector=False)
    assert (found.text, found.role, found.payload) == (None, None, {"age": 3})
    assert shard.search(Query(limit=5, text="old"), Where()) == []


def test_scroll_sees_every_point_once(shard: Shard) -> None:
    keys: list[str | int] = [*range(7), *(f"id-{n}" for n in range(8))]
    shard.upsert([point(key) for key in keys])
    seen: list[str | int] = []
    cursor = None
    while True:
        page = shard.scroll(Where(), limit=4, cursor=cursor, with_vector=False)
        seen += [record.id for record in page.records]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(map(str, seen)) == sorted(map(str, keys))
    assert seen[:7] == list(range(7))
    with pytest.raises(ValueError, match="cursor"):
        shard.scroll(Where(), limit=4, cursor="nonsense", with_vector=False)


@pytest.mark.parametrize(
    ("distance", "scores"),
    [("cosine", [1.0, 0.6]), ("dot", [6.0, 2.0]), ("euclid", [-1.0, -math.sqrt(17)])],
)
def test_scores_are_higher_when_nearer(
    store: Store, tmp_path: pathlib.Path, distance: Any, scores: list[float]
) -> None:
    shard = make(store, tmp_path / distance, ShardSpec(dimension=3, distance=distance, hybrid=False))
    near, far = (
        ([3.0, 0.0, 0.0], [0.6, 0.8, 0.0]) if distance == "cosine" else ([3.0, 0.0, 0.0], [1.0, 4.0, 0.0])
    )
    shard.upsert([point("far", far), point("near", near)])
    for exact in (False, True):
        hits = shard.search(Query(limit=5, vector=[2.0, 0.0, 0.0], exact=exact), Where())
        assert [hit.record.id for hit in hits] == ["near", "far"]
        assert [hit.score for hit in hits] == pytest.approx(scores, rel=1e-5)
    shard.close()


def test_words_are_weighed_among_what_the_scope_lets_through(shard: Shard) -> None:
    shard.upsert(
        [
            point("a1", text="forklift operators wanted", role_key="a"),
            point("a2", text="a warehouse with a forklift", role_key="a"),
            point("a3", text="night shift in the kitchen", role_key="a"),
            point("b1", text="forklift secrets", role_key="b"),
            point("c"),
        ]
    )
    scope = Where(scope=RoleScope(frozenset({"a"}), without_role=False))
    hits = shard.search(Query(limit=10, text="forklift operator"), scope)
    assert [hit.record.id for hit in hits] == ["a1", "a2"]
    # idf over the three texts of scope a: ln(1 + (3 - n + 0.5) / (n + 0.5)); weights are damped
    rare, common = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)
    weight = 2.2 / (1 + 1.2 * (1 - 0.75 + 0.75 * 3 / 256))
    assert hits[0].score == pytest.approx((rare + common) * weight, rel=1e-3)
    assert shard.search(Query(limit=10, text="the of"), scope) == []


def test_a_scope_lets_through_its_roles_alone(shard: Shard) -> None:
    shard.upsert([point("a", role_key="a"), point("b", role_key="b"), point("none")])

    def seen(*keys: str, without_role: bool = False) -> set[str | int]:
        where = Where(scope=RoleScope(frozenset(keys), without_role=without_role))
        hits = shard.search(Query(limit=9, vector=[1.0, 0.0, 0.0]), where)
        assert {hit.record.id for hit in hits} == ids(shard, where)
        return ids(shard, where)

    assert seen() == set()
    assert seen(without_role=True) == {"none"}
    assert seen("a") == {"a"}
    assert seen("a", "b") == {"a", "b"}
    assert seen("b", without_role=True) == {"b", "none"}
    scoped = Where(ids=["a", "b", "x"], scope=RoleScope(frozenset({"a"}), without_role=False))
    assert ids(shard, scoped) == {"a"}
    assert ids(shard, Where(ids=[])) == set()


def test_a_closed_shard_opens_again_with_everything(store: Store, tmp_path: pathlib.Path) -> None:
    spec = ShardSpec(dimension=3, distance="cosine", hybrid=True, payload_indexes={"age": "integer"})
    shard = make(store, tmp_path / "s", spec)
    shard.upsert([point(n, text="word", payload={"age": n}) for n in range(20)])
    shard.flush()
    shard.optimize()
    shard.close()
    moved = (tmp_path / "s").rename(tmp_path / "t")
    again = store.open(moved, spec)
    assert again.info().points == 20
    assert ids(again, Where(filter=Filter(must=[Condition(key="age", match=7.0)]))) == {7}
    assert len(again.search(Query(limit=50, text="words"), Where())) == 20
    again.close()
    with pytest.raises(StoreError):
        store.open(tmp_path / "nowhere", spec)


def test_a_lost_worker_loses_no_points(workers: WorkerStore, tmp_path: pathlib.Path) -> None:
    shard = make(workers, tmp_path / "s", SPEC)
    shard.upsert([point("x", text="kept")])
    (process,) = [child for child in active_children() if child.name.startswith("vectord-store")]
    process.kill()
    process.join()
    with pytest.raises(StoreError, match="lost"):
        shard.count(Where())
    assert [record.text for record in shard.get(["x"], with_vector=False)] == ["kept"]
    shard.close()


def test_a_worker_that_takes_too_long_is_ended(tmp_path: pathlib.Path) -> None:
    store = WorkerStore(processes=1, call_timeout_s=0.0)
    with pytest.raises(StoreError, match="no answer within 0 s"):
        store.create(tmp_path / "s", SPEC)
    store.close()


# --- filters: what the store finds is what the definition says ---------------------------------

SCALARS = st.one_of(
    st.sampled_from(
        ["Ulm", "5", "", "true", "2026-01-01", "2026-01-01T10:00:00Z", "2026-01-01 12:00+02:00", "20260101"]
    ),
    st.integers(-2, 6),
    st.sampled_from([0.0, 1.0, 5.0, 5.5, -0.5, float(2**53 - 1), 2**53 - 1, 0.1 + 0.2, 1e-7, 1e22]),
    st.booleans(),
)
VALUES = st.one_of(
    SCALARS, st.none(), st.lists(st.one_of(SCALARS, st.none(), st.just([]), st.just([5])), max_size=3)
)
PAYLOADS = st.fixed_dictionaries(
    {},
    optional={
        "city": VALUES,
        "age": VALUES,
        "a": st.one_of(VALUES, st.fixed_dictionaries({}, optional={"b": VALUES})),
        "list": st.one_of(
            VALUES,
            st.lists(st.one_of(SCALARS, st.fixed_dictionaries({}, optional={"x": VALUES})), max_size=3),
        ),
        "$s": VALUES,
        "über uns": VALUES,
    },
)
NUMBERS = st.one_of(st.integers(-2, 6), st.sampled_from([5.0, 5.5, 0.1 + 0.2, 2**53 - 1, 1e22, 1e-7]))
DATES = st.sampled_from(["2026-01-01", "2026-01-01T10:00:00Z", "2026-01-01T10:00:00.000001Z", "2025-12-31"])
BOUNDS = ("gt", "gte", "lt", "lte")


def ranges(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(BOUNDS), values, min_size=1, max_size=2)


TESTS = st.one_of(
    st.fixed_dictionaries({"match": SCALARS}),
    st.fixed_dictionaries({"any": st.lists(SCALARS, min_size=1, max_size=4)}),
    st.fixed_dictionaries({"range": st.one_of(ranges(NUMBERS), ranges(DATES))}),
    st.fixed_dictionaries({"exists": st.booleans()}),
)
CONDITIONS = st.builds(lambda key, test: {"key": key, **test}, st.sampled_from(KEYS), TESTS)
FILTERS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    CONDITIONS,
    lambda inner: st.fixed_dictionaries(
        {}, optional={name: st.lists(inner, max_size=3) for name in ("must", "should", "must_not")}
    ),
    max_leaves=6,
)


KINDS: dict[str, Any] = {
    "city": "keyword", "age": "integer", "a.b": "datetime", "list[].x": "float", "$s": "bool"
}  # fmt: skip


@pytest.fixture(scope="module", params=["edge indexed", "edge", "lance", "qdrant"])
def filtered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shard]:
    made: dict[str, Callable[[], Store]] = {"edge": EdgeStore, "lance": lambda: LanceStore(LanceOptions())}
    engine, _, indexed = request.param.partition(" ")
    spec = ShardSpec(dimension=3, distance="cosine", hybrid=False, payload_indexes=KINDS if indexed else {})
    shard = make(made.get(engine, qdrant)(), tmp_path_factory.mktemp(engine) / "s", spec)
    yield shard
    shard.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    payloads=st.lists(PAYLOADS, min_size=1, max_size=12),
    nodes=st.lists(FILTERS, min_size=1, max_size=8),
    optimize=st.booleans(),
)
def test_a_filter_means_the_same_in_every_engine(
    filtered: Shard, payloads: list[dict[str, Any]], nodes: list[dict[str, Any]], *, optimize: bool
) -> None:
    filtered.delete(list(range(20)))
    filtered.upsert([point(n, payload=payload) for n, payload in enumerate(payloads)])
    if optimize and isinstance(filtered, LanceShard):  # its indexes know new points only afterwards
        filtered.optimize()
    for node in nodes:
        wanted = Filter.model_validate({"must": [node]})
        expected = {n for n, payload in enumerate(payloads) if matches(wanted, payload)}
        assert ids(filtered, Where(filter=wanted)) == expected
        hits = filtered.search(Query(limit=20, vector=[1.0, 0.0, 0.0]), Where(filter=wanted))
        assert {hit.record.id for hit in hits} == expected
