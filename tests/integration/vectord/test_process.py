"""A real vectord process on a real port: what it acknowledged is there after SIGKILL; health never stalls."""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.testing import free_port
from tests.processes import Running, running

pytestmark = pytest.mark.enable_socket

DIMENSION = 16


@dataclass(frozen=True)
class Vectord:
    """A running process and a client of its collections."""

    running: Running
    http: httpx.Client

    def put(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("PUT", path, body)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any]) -> Any:
        answer = self.http.request(method, f"/v1/collections/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextmanager
def vectord_in(folder: Path, **settings: str) -> Iterator[Vectord]:
    env = {"VECTORD_EMBEDD_URL": f"http://127.0.0.1:{free_port()}", **settings}
    with (
        running("vectord", folder, env=env) as process,
        httpx.Client(base_url=process.url, timeout=60, trust_env=False) as http,
    ):
        yield Vectord(process, http)


def vector(number: int) -> list[float]:
    random_ = random.Random(number)
    return [random_.gauss(0, 1) for _ in range(DIMENSION)]


def test_acknowledged_points_survive_sigkill(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    settings = {"VECTORD_OPTIMIZE_AFTER_POINTS": "300"}  # kill it while indexes are being rebuilt, too
    with vectord_in(tmp_path, **settings) as vectord:
        vectord.put("c", {"dimension": DIMENSION, "payload_indexes": {"n": "integer"}})

        def write() -> None:
            for start in range(0, 100_000, 20):
                points = [
                    {"id": n, "vector": vector(n), "text": f"point {n}", "payload": {"n": n}}
                    for n in range(start, start + 20)
                ]
                try:
                    vectord.put("c/points", {"points": points})
                except httpx.TransportError:
                    return
                acknowledged.append(start)

        writer = threading.Thread(target=write)
        writer.start()
        while len(acknowledged) < 60:
            time.sleep(0.01)
        vectord.running.kill()
        writer.join()
    with vectord_in(tmp_path, **settings) as vectord:
        for start in acknowledged:
            ids = list(range(start, start + 20))
            found = vectord.post("c/points/get", {"ids": ids})["points"]
            assert [point["id"] for point in found] == ids
            assert found[3]["payload"] == {"n": start + 3}
        count = vectord.post("c/points/count", {})["count"]
        assert count in (
            len(acknowledged) * 20,
            len(acknowledged) * 20 + 20,
        )  # the last call: whole or not at all
        assert vectord.post("c/search", {"vector": vector(5), "k": 1})["hits"][0]["id"] == 5
        assert vectord.running.stop() == 0
        log = vectord.running.text()
    assert "Traceback" not in log
    assert {json.loads(line)["daemon"] for line in log.splitlines()} == {"vectord"}


def test_health_answers_while_an_index_is_rebuilt(tmp_path: Path) -> None:
    with vectord_in(tmp_path, VECTORD_OPTIMIZE_AFTER_POINTS="8000", VECTORD_WORKERS="1") as vectord:
        vectord.put("c", {"dimension": 384, "hybrid": False})
        numbers = [round(random.Random(1).gauss(0, 1) + n % 7, 3) for n in range(9001)]
        random.Random(2).shuffle(numbers)
        for start in range(0, 8000, 500):
            points = [{"id": n, "vector": numbers[n : n + 384]} for n in range(start, start + 500)]
            vectord.put("c/points", {"points": points})
        states = []
        while "vectord_optimize_seconds_count 1.0" not in vectord.http.get("/metrics").text:
            assert vectord.http.get("/healthz").status_code == 200
            states.append(vectord.http.get("/v1/collections/c").json()["index"])
        # In the daemon's own process not one answer would come meanwhile.
        assert states.count("building") >= 3
        assert vectord.http.get("/v1/collections/c").json()["index"] == "ready"
