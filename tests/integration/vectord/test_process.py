"""A real vectord process on a real port: what it acknowledged is there after SIGKILL; health never stalls."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from services.testing import free_port

pytestmark = pytest.mark.enable_socket

ROOT = pathlib.Path(__file__).parents[3]
DIMENSION = 16


class Process:
    def __init__(self, data: pathlib.Path, **settings: str) -> None:
        port = free_port()
        environment = {
            **os.environ,
            "STILLHOUSE_DATA": str(data),
            "VECTORD_PORT": str(port),
            "VECTORD_EMBEDD_URL": f"http://127.0.0.1:{free_port()}",
            **settings,
        }
        self.log_file = data / f"{port}.log"  # not a pipe: a full one would stop the daemon
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vectord"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            try:
                if self.http.get("/readyz").json()["dependencies"]["storage"]["ok"]:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError("vectord did not become ready")

    def put(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.http.put(f"/v1/collections/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.http.post(f"/v1/collections/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def log(self) -> str:
        return self.log_file.read_text()

    def stop(self, sig: signal.Signals) -> str:
        self.process.send_signal(sig)
        self.process.wait(60)
        self.http.close()
        return self.log()


@contextmanager
def running(data: pathlib.Path, **settings: str) -> Iterator[Process]:
    process = Process(data, **settings)
    try:
        process.wait()
        yield process
    finally:
        if process.process.poll() is None:
            process.stop(signal.SIGKILL)


def vector(number: int) -> list[float]:
    random_ = random.Random(number)
    return [random_.gauss(0, 1) for _ in range(DIMENSION)]


def test_acknowledged_points_survive_sigkill(tmp_path: pathlib.Path) -> None:
    acknowledged: list[int] = []
    settings = {"VECTORD_OPTIMIZE_AFTER_POINTS": "300"}  # kill it while indexes are being rebuilt, too
    with running(tmp_path, **settings) as vectord:
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
        vectord.process.kill()
        writer.join()
        vectord.stop(signal.SIGKILL)
    with running(tmp_path, **settings) as vectord:
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
        log = vectord.stop(signal.SIGTERM)
    assert "Traceback" not in log
    assert {json.loads(line)["daemon"] for line in log.splitlines()} == {"vectord"}
    assert vectord.process.returncode == 0


def test_health_answers_while_an_index_is_rebuilt(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, VECTORD_OPTIMIZE_AFTER_POINTS="8000", VECTORD_WORKERS="1") as vectord:
        vectord.put("c", {"dimension": 384, "hybrid": False})
        numbers = [round(random.Random(1).gauss(0, 1) + n % 7, 3) for n in range(9001)]
        random.Random(2).shuffle(numbers)
        for start in range(0, 8000, 500):
            points = [{"id": n, "vector": numbers[n : n + 384]} for n in range(start, start + 500)]
            vectord.put("c/points", {"points": points})
        answered, states = 0, []
        while "vectord_optimize_seconds_count 1.0" not in (text := vectord.http.get("/metrics").text):
            assert vectord.http.get("/healthz").status_code == 200
            states.append(vectord.http.get("/v1/collections/c").json()["index"])
            answered += 1
        rebuilding_s = next(
            float(line.split()[1])
            for line in text.splitlines()
            if line.startswith("vectord_optimize_seconds_sum")
        )
        # In the daemon's own process not one answer would come meanwhile.
        assert answered > rebuilding_s * 10
        assert "building" in states
        assert vectord.http.get("/v1/collections/c").json()["index"] == "ready"
        vectord.stop(signal.SIGTERM)
