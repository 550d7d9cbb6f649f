"""vectord killed with SIGKILL at random moments under writes: what was acknowledged is there, once, and soon.

`CHAOS_ROUNDS` says how often (50), `CHAOS_SEED` when.
"""

import contextlib
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import httpx
import psutil
import pytest

from services.testing import client_for, free_port
from tests.processes import Running, running
from vectord.app import create_app
from vectord.settings import Settings

pytestmark = pytest.mark.enable_socket

ROUNDS: Final = int(os.environ.get("CHAOS_ROUNDS", "50"))
ROUNDS_IN_CI: Final = 2
SEED: Final = int(os.environ.get("CHAOS_SEED", "7"))
WRITERS: Final = 3
BATCH: Final = 25
DIMENSION: Final = 8
PATIENCE_S: Final = 60.0
TELLING: Final = ("manifest.json", "CURRENT", "edge_config.json", "segment.json")
SERVES_WITHIN_S: Final = float(os.environ.get("RECOVERY_S", "60"))  # `make chaos` asks for 5

Json = dict[str, Any]


@dataclass
class Book:
    """What each writer did: the last value acknowledged for an id, and the one that may have been written."""

    known: dict[str, int | None] = field(default_factory=dict)
    unsure: dict[str, set[int | None]] = field(default_factory=dict)
    writes: int = 0

    def began(self, values: dict[str, int | None]) -> None:
        for key, value in values.items():
            self.unsure.setdefault(key, set()).add(value)

    def ended(self, values: dict[str, int | None]) -> None:
        self.known.update(values)
        for key in values:
            self.unsure.pop(key, None)
        self.writes += 1

    def may_be(self, key: str) -> set[int | None]:
        """The values that may be found; None: it need not be there."""
        return {self.known.get(key), *self.unsure.get(key, ())}


def settings(chance: random.Random) -> dict[str, str]:
    return {
        "VECTORD_EMBEDD_URL": f"http://127.0.0.1:{free_port()}",
        "VECTORD_OPTIMIZE_AFTER_POINTS": "200",  # rebuilds are under way most of the time
        "VECTORD_WORKERS": str(chance.choice((1, 2))),
        "VECTORD_CANARY_INTERVAL_S": "0.2",
    }


def vector(value: int) -> list[float]:
    chance = random.Random(value)
    return [chance.gauss(0, 1) for _ in range(DIMENSION)]


def client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S)


def point(key: str, value: int) -> Json:
    return {
        "id": key,
        "vector": vector(value),
        "text": f"shift number {value}",
        "role": "nurse" if value % 2 else "welder",
        "payload": {"value": value},
    }


def write_until_dead(url: str, name: str, book: Book, seed: int) -> None:
    """New points, old ones again, and deletions, in calls that the book knows of before and after."""
    chance = random.Random(seed)
    with client(url) as http, contextlib.suppress(httpx.TransportError):
        for number in range(100_000):
            if number % 5 == 4 and book.known:
                keys = chance.sample(sorted(book.known), min(5, len(book.known)))
                gone: dict[str, int | None] = dict.fromkeys(keys)
                book.began(gone)
                answers = [
                    http.post("/v1/collections/c/points/delete", json={"ids": keys, "role": role})
                    for role in ("nurse", "welder")
                ]
                if all(answer.status_code == 200 for answer in answers):
                    book.ended(gone)
                continue
            fresh = [f"{name}-{chance.randrange(2000)}" for _ in range(BATCH)]
            values: dict[str, int | None] = {key: chance.randrange(10**9) for key in fresh}
            book.began(values)
            points: Json = {
                "points": [point(key, value) for key, value in values.items() if value is not None],
                "durability": chance.choice(("wal", "fsync")),
            }
            answer = http.put("/v1/collections/c/points", json=points)
            if answer.status_code == 200:
                book.ended(values)
            elif answer.status_code < 500:  # a worker was killed: perhaps written, perhaps not
                raise AssertionError(answer.text)


def snapshot_until_dead(url: str) -> None:
    with client(url) as http, contextlib.suppress(httpx.TransportError, KeyError):
        while True:
            made = http.post("/v1/collections/c/snapshots")
            name = made.json()["name"]
            http.delete(f"/v1/collections/c/snapshots/{name}")


def kill(vectord: Running, *, workers_first: bool) -> None:
    """SIGKILL to the daemon, after one to each of its workers if asked for; all are gone when it returns."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(vectord.process.pid).children(recursive=True)
        if workers_first:
            for worker in family:
                worker.kill()
            time.sleep(0.05)
        vectord.kill()
        _, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
        assert alive == [], "workers of a killed vectord live on"


@contextlib.contextmanager
def alive(folder: Path, env: dict[str, str]) -> Iterator[Running]:
    """A vectord, once it serves its collection; that must be soon."""
    start = time.monotonic()
    with running("vectord", folder, env=env) as vectord, client(vectord.url) as http:
        known = http.get("/v1/collections/c").status_code
        assert known == 404 or search(http)
        seconds = time.monotonic() - start
        assert known == 404 or seconds < SERVES_WITHIN_S * slowness(), f"served after {seconds:.1f} s"
        yield vectord


def slowness() -> float:
    """How much longer than alone things may take here: the machine may be shared with much else."""
    return max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


def search(http: httpx.Client) -> bool:
    body = {"vector": vector(1), "role": "nurse", "k": 3}
    return http.post("/v1/collections/c/search", json=body).status_code == 200


def check(url: str, books: list[Book]) -> int:
    """Compare everything that is there with the books. Returns the number of points."""
    with client(url) as http:
        found: list[Json] = []
        for role in ("nurse", "welder"):
            cursor: str | None = None
            while True:
                body: Json = {"role": role, "limit": 1000, "with": ["payload", "text", "vector"]}
                page = http.post(
                    "/v1/collections/c/points/scroll", json={**body, **({"cursor": cursor} if cursor else {})}
                ).json()
                found += page["points"]
                cursor = page.get("cursor")
                if cursor is None:
                    break
        ids = [item["id"] for item in found]
        assert len(ids) == len(set(ids)), "a point is there twice"
        there = {item["id"]: item for item in found}
        for book in books:
            for key in {*book.known, *book.unsure}:
                value = there[key]["payload"]["value"] if key in there else None
                assert value in book.may_be(key), (key, value, book.may_be(key))
                book.known[key], _ = value, book.unsure.pop(key, None)
        for item in found:  # whole points, not one's payload with another's vector
            value = item["payload"]["value"]
            assert item["text"] == f"shift number {value}"
            assert item["role"] == point("", value)["role"]
            expected = vector(value)
            length = sum(number * number for number in expected) ** 0.5
            assert item["vector"] == pytest.approx([number / length for number in expected], abs=1e-5)
        counts = (
            http.post("/v1/collections/c/points/count", json={"role": role}).json()["count"]
            for role in ("nurse", "welder")
        )
        assert sum(counts) == len(found)
        assert http.get("/v1/collections/c").json()["count"] == len(found)
        for item in found[:: max(1, len(found) // 20)]:  # the index knows them
            body = {"vector": item["vector"], "role": item["role"], "k": 3}
            hits = http.post("/v1/collections/c/search", json=body).json()["hits"]
            assert item["id"] in [hit["id"] for hit in hits]
        return len(found)


def under_write(folder: Path, rounds: int) -> None:
    chance = random.Random(SEED)
    books = [Book() for _ in range(WRITERS)]
    kills = {"daemon": 0, "workers, then daemon": 0}
    for life in range(rounds):
        with alive(folder, settings(chance)) as vectord:
            with client(vectord.url) as http:
                made = http.put("/v1/collections/c", json={"dimension": DIMENSION, "gated": True})
                assert made.status_code == 200, made.text
            check(vectord.url, books)
            before = sum(book.writes for book in books)
            threads = [
                threading.Thread(
                    target=write_until_dead, args=(vectord.url, f"w{number}", book, life * WRITERS + number)
                )
                for number, book in enumerate(books)
            ]
            threads.append(threading.Thread(target=snapshot_until_dead, args=(vectord.url,)))
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + PATIENCE_S
            while sum(book.writes for book in books) < before + 5:
                assert time.monotonic() < deadline, vectord.text()
                time.sleep(0.005)
            time.sleep(chance.random() * 0.7)
            workers_first = chance.random() < 0.4
            kill(vectord, workers_first=workers_first)
            kills["workers, then daemon" if workers_first else "daemon"] += 1
            for thread in threads:
                thread.join(PATIENCE_S)
                assert not thread.is_alive()
    with alive(folder, settings(chance)) as vectord:
        points = check(vectord.url, books)
        assert vectord.stop() == 0
    assert not list((folder / "data" / "vectors" / ".snapshots").rglob(".making-*"))
    calls = sum(book.writes for book in books)
    print(f"{kills}: {calls} calls acknowledged, {points} points, 0 lost, 0 doubled")


def test_a_few_kills_under_write(tmp_path: Path) -> None:
    under_write(tmp_path, ROUNDS_IN_CI)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_many_kills_under_write(tmp_path: Path) -> None:
    under_write(tmp_path, ROUNDS)


@pytest.mark.anyio
async def test_a_torn_file_is_reported_and_never_served(tmp_path: Path) -> None:
    """Files that say what there is, cut short one after the other; another collection serves throughout."""
    settings = Settings(data=tmp_path / "data", workers=1, optimize_after_points=200)
    asked = {"vector": vector(1), "k": 1}
    async with client_for(create_app(settings)) as http:
        for name in ("c", "whole"):
            await http.put(f"/v1/collections/{name}", json={"dimension": DIMENSION})
            points = [{**point(f"p{value}", value), "role": None} for value in range(400)]
            answer = await http.put(f"/v1/collections/{name}/points", json={"points": points})
            assert answer.status_code == 200
        with anyio.fail_after(PATIENCE_S):
            while "vectord_optimize_seconds_count 2.0" not in (await http.get("/metrics")).text:  # noqa: ASYNC110 - it is known by its metric
                await anyio.sleep(0.02)
    data, kept = tmp_path / "data" / "vectors", tmp_path / "kept"
    shutil.copytree(data, kept)
    found = {path.name: path for path in sorted((data / "c").rglob("*")) if path.name in TELLING}
    assert found.keys() >= {"manifest.json", "segment.json"}
    for path in found.values():
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        async with client_for(create_app(settings)) as http:
            answer = await http.post("/v1/collections/whole/search", json=asked)
            assert answer.status_code == 200, (path, answer.text)
            answer = await http.post("/v1/collections/c/search", json=asked)
            reported = (await http.get("/readyz")).json()["dependencies"]["storage"]
            if path.name == "manifest.json":
                assert answer.status_code == 404
                assert list((data / ".aside").iterdir())
            else:
                assert answer.status_code == 503, (path, answer.text)
                assert not reported["ok"]
                assert reported["reason"].endswith(": c")
        shutil.rmtree(data)
        shutil.copytree(kept, data)
