"""A gateway over a vectord, as processes, with a key, metrics and logs on."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from services.keys import KeyGrant, KeyStore
from services.testing import free_port
from tests.processes import Running, running

TIMEOUT_S: Final = 600.0
WRITERS: Final = 3
"""Connections that write: while one batch is checked, another is stored."""


@dataclass(frozen=True)
class House:
    """What runs, and a key for it."""

    gateway: Running
    vectord: Running
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}", "content-type": "application/json"}

    def search_url(self, name: str, *, straight: bool = False) -> str:
        return f"{(self.vectord if straight else self.gateway).url}/v1/collections/{name}/search"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = httpx.request(
            method,
            f"{self.vectord.url}/v1/collections/{path}",
            json=body,
            timeout=TIMEOUT_S,
            trust_env=False,
        )
        return answer.raise_for_status().json()

    def ids(self, name: str, bodies: Iterable[str]) -> list[list[int]]:
        """The ids that each search finds, through the gateway."""
        with httpx.Client(headers=self.headers, timeout=TIMEOUT_S, trust_env=False) as client:
            answers = [client.post(self.search_url(name), content=body) for body in bodies]
        return [[hit["id"] for hit in answer.raise_for_status().json()["hits"]] for answer in answers]

    def write(self, name: str, batches: Iterable[bytes], *, straight: bool = False) -> float:
        """Write batches of points over a few connections; the seconds that took."""
        root = (self.vectord if straight else self.gateway).url
        with httpx.Client(headers=self.headers, timeout=TIMEOUT_S, trust_env=False) as client:

            def put(body: bytes) -> None:
                client.put(f"{root}/v1/collections/{name}/points", content=body).raise_for_status()

            started = time.perf_counter()
            with ThreadPoolExecutor(WRITERS) as pool:
                for _ in pool.map(put, batches):
                    pass
            return time.perf_counter() - started

    def wait_for_index(self, name: str) -> float:
        """Return when the index is made; the seconds that took."""
        started = time.perf_counter()
        while self.call("GET", name)["index"] != "ready":
            time.sleep(0.2)
        return time.perf_counter() - started


@contextmanager
def house(folder: Path, env: Mapping[str, str] | None = None) -> Iterator[House]:
    """Vectord and gateway, with all data and logs under `folder`; `env` is for vectord."""
    key, _ = KeyStore(folder / "data").create(
        KeyGrant(name="bench", scopes=("vectors:read", "vectors:write"))
    )
    nowhere = f"http://127.0.0.1:{free_port()}"
    with (
        running("vectord", folder, env={"VECTORD_EMBEDD_URL": nowhere, **(env or {})}) as vectord,
        running("gateway", folder, env={"GATEWAY_VECTORD_URLS": vectord.url}) as gateway,
    ):
        yield House(gateway, vectord, key)


def show(**figures: object) -> None:
    """Print figures as one line of JSON."""
    print(json.dumps(figures), flush=True)
