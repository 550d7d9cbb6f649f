"""Searches that are answered without a task find what the others find, and are gated like them."""

import base64
import random
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from services.testing import free_port
from tests.processes import running

pytestmark = pytest.mark.enable_socket

DIMENSION = 8
ROLES = ("welder", "cook", "driver")


def vector(number: int) -> list[float]:
    random_ = random.Random(number)
    return [random_.gauss(0, 1) for _ in range(DIMENSION)]


def encoded(numbers: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    env = {"VECTORD_EMBEDD_URL": f"http://127.0.0.1:{free_port()}", "VECTORD_WORKERS": "1"}
    with (
        running("vectord", tmp_path_factory.mktemp("vectord"), env=env) as process,
        httpx.Client(base_url=f"{process.url}/v1", timeout=60, trust_env=False) as client,
    ):
        catalogue = [
            {"name": "welder", "aliases": ["TIG welder"], "compatible": ["driver"]},
            {"name": "cook"},
            {"name": "driver"},
        ]
        client.put("/roles", json={"roles": catalogue}).raise_for_status()
        for name, gated, distance in (
            ("open", False, "cosine"),
            ("gated", True, "cosine"),
            ("far", False, "euclid"),
        ):
            spec = {"dimension": DIMENSION, "gated": gated, "distance": distance, "hybrid": False}
            client.put(f"/collections/{name}", json=spec).raise_for_status()
            points = [
                {
                    "id": n if n % 3 else f"point {n}",
                    "vector": vector(n),
                    "payload": {"n": n, "none": None, "deep": {"a": [1.5, {"b": None}], "ü": "\u2028"}},
                    **({"text": f'text "{n}"\n'} if n % 2 else {}),
                    **({"role": ROLES[n % 3]} if gated or n % 5 == 0 else {}),
                }
                for n in range(300)
            ]
            client.put(f"/collections/{name}/points", json={"points": points}).raise_for_status()
        yield client


def answered(
    http: httpx.Client, name: str, body: dict[str, Any], roles: str | None = None
) -> tuple[int, Any]:
    headers = {} if roles is None else {"x-stillhouse-roles": roles}
    answer = http.post(f"/collections/{name}/search", json=body, headers=headers)
    assert answer.headers["x-request-id"]
    told = answer.json()
    if answer.status_code == 200:
        assert told.pop("took_ms") > 0
    else:
        assert told["error"].pop("request_id")
    return answer.status_code, told


VARIANTS: list[dict[str, Any]] = [
    {},
    {"k": 3},
    {"k": 0},
    {"k": 100_000},
    {"k": True},
    {"exact": True},
    {"ef": 64},
    {"ef": 100_000},
    {"score_min": 0.5},
    {"score_min": -1},
    {"score_min": 10**20},
    {"with": []},
    {"with": ["text"]},
    {"with": ["payload"]},
    {"with": ["vector"]},
    {"with": ["nothing"]},
    {"filter": {"must": [{"key": "n", "range": {"lt": 50}}]}},
    {"filter": {"must_not": [{"key": "n", "match": 7}], "should": [{"key": "deep.a", "match": 1.5}]}},
    {"filter": {"must": [{"key": "n", "match": 12345678901234567890}]}},
    {"filter": {"must": [{"key": "n..n", "match": 1}]}},
    {"filter": {"wrong": []}},
    {"filter": {"should": [{"key": "role", "match": "cook"}, {"key": "n", "exists": True}]}},
    {"role": "welder"},
    {"role": "tig-welders"},
    {"role": "\u1d21elder"},
    {"role": "pilot"},
    {"role": ""},
    {"role": None, "k": 5},
    {"role": 5},
    {"mode": "sparse"},
    {"mode": "dense", "k": 2},
    {"surprise": 1},
]


@pytest.mark.parametrize("name", ["open", "gated", "far"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_both_ways_answer_the_same(http: httpx.Client, name: str, variant: dict[str, Any]) -> None:
    for roles in (None, "cook"):
        for question in (vector(1000), encoded(vector(1000)), [0.0] * DIMENSION, [1, 2], [True] * DIMENSION):
            body = {"vector": question, **variant}
            short = answered(http, name, body, roles)
            # A field that the short way does not know, and that changes nothing.
            long = answered(http, name, {**body, "text": None}, roles)
            assert short == long


def test_the_short_way_is_taken(http: httpx.Client) -> None:
    """Were it not, the tests above would compare the long way with itself. Their headers differ in order."""
    for body, short in (({}, True), ({"filter": {"must": []}, "k": 3}, True), ({"text": None}, False)):
        answer = http.post("/collections/open/search", json={"vector": vector(1), **body})
        names = list(answer.headers)
        assert (names.index("x-request-id") < names.index("content-length")) is short
    assert http.post("/collections/none/search", json={"vector": vector(1)}).status_code == 404


def test_many_at_once_get_their_own_answers(http: httpx.Client) -> None:
    def own(number: int) -> bool:
        body = {"vector": vector(number), "k": 1, "with": []}
        ((hit,),) = (answered(http, "open", body)[1]["hits"],)
        return bool(hit["id"] == (number if number % 3 else f"point {number}"))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(own, range(300)))
