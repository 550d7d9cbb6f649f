"""A real vectord killed while a collection moves to another engine: one serves all of it afterwards."""

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.testing import free_port
from tests.processes import Running, running

pytestmark = [pytest.mark.chaos, pytest.mark.enable_socket, pytest.mark.timeout(900)]

KILLS = int(os.environ.get("MOVE_KILLS", "6"))
POINTS = 2000
PATIENCE_S = 60


@contextmanager
def vectord_in(folder: Path) -> Iterator[tuple[Running, httpx.Client]]:
    env = {"VECTORD_EMBEDD_URL": f"http://127.0.0.1:{free_port()}"}
    with (
        running("vectord", folder, env=env) as process,
        httpx.Client(base_url=f"{process.url}/v1/collections", timeout=60, trust_env=False) as http,
    ):
        yield process, http


def points(start: int, count: int) -> dict[str, Any]:
    draw = random.Random(start)
    return {
        "points": [
            {"id": n, "vector": [draw.gauss(0, 1) for _ in range(16)], "payload": {"n": n}}
            for n in range(start, start + count)
        ]
    }


def there(http: httpx.Client) -> set[int]:
    ids: set[int] = set()
    cursor = None
    while True:
        body = {"limit": 1000, "with": []} | ({"cursor": cursor} if cursor is not None else {})
        page = http.post("/c/points/scroll", json=body).raise_for_status().json()
        ids |= {point["id"] for point in page["points"]}
        cursor = page.get("cursor")
        if cursor is None:
            return ids


def write(http: httpx.Client, acknowledged: set[int]) -> None:
    """Write until nobody answers."""
    while True:
        start = max(acknowledged) + 1
        try:
            http.put("/c/points", json=points(start, 5)).raise_for_status()
        except httpx.TransportError:
            return
        acknowledged.update(range(start, start + 5))


def test_a_kill_during_a_move_leaves_one_engine_with_every_acknowledged_point(tmp_path: Path) -> None:
    acknowledged = set(range(POINTS))
    with vectord_in(tmp_path) as (_, http):
        http.put("/c", json={"dimension": 16, "hybrid": False}).raise_for_status()
        for start in range(0, POINTS, 500):
            http.put("/c/points", json=points(start, 500)).raise_for_status()
    draw = random.Random(7)
    for _ in range(KILLS):
        with vectord_in(tmp_path) as (process, http):
            engine = http.get("/c").json()["engine"]
            target = "edge" if engine == "lance" else "lance"
            assert http.post("/c/migrate", json={"engine": target}).status_code == 202

            writer = threading.Thread(target=write, args=(http, acknowledged))
            writer.start()
            time.sleep(draw.uniform(0.1, 2.0))  # any moment of the move will do, and after it, too
            process.kill()
            writer.join(PATIENCE_S)
        with vectord_in(tmp_path) as (_, http):
            described = http.get("/c").json()
            found = there(http)
            assert acknowledged <= found
            assert len(found) <= len(acknowledged) + 5  # the last call: whole or not at all
            assert described["count"] == len(found)
            acknowledged |= found
            (shard,) = tmp_path.rglob("vectors/c/shard*")
            assert shard.name == "shard" or shard.name.startswith(f"shard-{described['engine']}-")
            nearest = http.post("/c/search", json={"vector": points(0, 1)["points"][0]["vector"], "k": 1})
            assert nearest.json()["hits"][0]["id"] == 0
