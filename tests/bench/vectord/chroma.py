"""Chroma's own server as a process, spoken to over HTTP."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import httpx
import orjson

from services.testing import free_port
from tests.bench.vectord.glove import Floats, K

TIMEOUT_S: Final = 600.0
START_S: Final = 60.0
BATCH: Final = 1000
DATABASE: Final = "/api/v2/tenants/default_tenant/databases/default_database"


@dataclass(frozen=True)
class Chroma:
    """A server with one empty collection of vectors compared by cosine."""

    url: str
    collection: str

    @classmethod
    @contextmanager
    def running(cls, python: str, folder: Path) -> Iterator[Self]:
        folder.mkdir()
        port = free_port()
        arguments = ["run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
        command = [str(Path(python).with_name("chroma")), *arguments]
        with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                yield cls(url, _made(url))
            finally:
                process.terminate()

    @property
    def query_url(self) -> str:
        return f"{self.url}{DATABASE}/collections/{self.collection}/query"

    def write(self, rows: Floats) -> float:
        """Store all rows; the seconds that took."""
        started = time.perf_counter()
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
            for first in range(0, len(rows), BATCH):
                part = rows[first : first + BATCH].tolist()
                body = {"ids": [str(first + n) for n in range(len(part))], "embeddings": part}
                path = f"{DATABASE}/collections/{self.collection}/upsert"
                client.post(f"{self.url}{path}", json=body).raise_for_status()
        return time.perf_counter() - started

    def bodies(self, queries: Floats) -> list[str]:
        return [
            orjson.dumps({"query_embeddings": [row], "n_results": K, "include": []}).decode()
            for row in queries.tolist()
        ]

    def ids(self, bodies: Sequence[str]) -> list[list[int]]:
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
            json = {"content-type": "application/json"}
            answers = [client.post(self.query_url, content=body, headers=json) for body in bodies]
        return [[int(text) for text in answer.raise_for_status().json()["ids"][0]] for answer in answers]


def _made(url: str) -> str:
    """The collection's id, once the server is up."""
    deadline = time.monotonic() + START_S
    body = {"name": "words", "configuration": {"hnsw": {"space": "cosine"}}}
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            answer = httpx.post(f"{url}{DATABASE}/collections", json=body, trust_env=False, timeout=30.0)
            made: str = answer.raise_for_status().json()["id"]
            return made
        time.sleep(0.1)
    raise AssertionError("chroma did not start")
