"""Vectors sent as base64 of float32 numbers are the same as those sent as lists."""

import base64
import math
import struct

import pytest

from tests.unit.vectord.conftest import Vectord

pytestmark = pytest.mark.anyio


def encoded(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


async def test_both_ways_store_and_find_the_same(vectord: Vectord) -> None:
    await vectord.call("PUT", "/collections/c", {"dimension": 3, "distance": "dot"})
    numbers = [0.5, -2.25, 1.0]
    await vectord.put("c", {"id": 1, "vector": numbers}, {"id": 2, "vector": encoded(*numbers)})
    got = await vectord.call("POST", "/collections/c/points/get", {"ids": [1, 2], "with": ["vector"]})
    assert [point["vector"] for point in got["points"]] == [numbers, numbers]
    for vector in (numbers, encoded(*numbers)):
        answer = await vectord.call("POST", "/collections/c/search", {"vector": vector})
        assert [hit["score"] for hit in answer["hits"]] == [6.3125, 6.3125]


@pytest.mark.parametrize(
    "vector",
    ["", "####", "AAA=", encoded(1.0, 2.0), encoded(1.0, math.nan, 0.0), encoded(math.inf, 1.0, 0.0)],
)
async def test_what_is_no_vector_is_named(vectord: Vectord, vector: str) -> None:
    await vectord.call("PUT", "/collections/c", {"dimension": 3})
    good = {"id": 1, "vector": [1.0, 0.0, 0.0]}
    error = await vectord.error(
        "PUT", "/collections/c/points", {"points": [good, {"id": 2, "vector": vector}]}
    )
    assert error["param"] == "points.1.vector"
    assert (await vectord.call("POST", "/collections/c/points/count", {}))["count"] == 0
    error = await vectord.error("POST", "/collections/c/search", {"vector": vector})
    assert error["param"] == "vector"
