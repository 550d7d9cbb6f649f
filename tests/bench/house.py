"""A gateway and an embedd as processes, with keys, metrics and logs on, over a stub of Ollama."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
import orjson
import psutil

from services.keys import KeyGrant, KeyStore
from tests.bench.load import Load
from tests.bench.ollama_stub import MODEL
from tests.processes import Running, running

TIMEOUT_S = 60.0
MEGABYTE = 1024 * 1024

WARM_TEXTS = tuple(f"warm text number {number}" for number in range(100))


@dataclass(frozen=True)
class House:
    """What runs, and a key for it."""

    gateway: Running
    embedd: Running
    stub: Running
    key: str

    @property
    def url(self) -> str:
        return f"{self.gateway.url}/v1/embeddings"

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}", "content-type": "application/json"}

    def load(self, bodies: Sequence[str], *, connections: int = 32, seconds: float = 4.0) -> Load:
        return Load(self.url, bodies, self.headers, connections, seconds)

    def embed(self, texts: Sequence[str]) -> httpx.Response:
        """Embed texts as floats. Raises `httpx.HTTPStatusError` for another answer than 2xx."""
        answer = httpx.post(
            self.url, content=body_of(texts), headers=self.headers, timeout=TIMEOUT_S, trust_env=False
        )
        return answer.raise_for_status()

    def warm(self, encoding: str = "float") -> None:
        """Bring `WARM_TEXTS` into the cache, encoded in one of the two ways."""
        for body in (body_of(WARM_TEXTS, encoding), *bodies_of(WARM_TEXTS, encoding)):
            httpx.post(
                self.url, content=body, headers=self.headers, timeout=TIMEOUT_S, trust_env=False
            ).raise_for_status()

    def counts(self) -> tuple[int, int]:
        """Calls and texts that the stub has embedded so far."""
        counts = httpx.get(f"{self.stub.url}/stub/counts", timeout=TIMEOUT_S, trust_env=False).json()
        return counts["calls"], counts["texts"]


def body_of(texts: Sequence[str], encoding: str = "float") -> str:
    return orjson.dumps({"model": MODEL, "input": list(texts), "encoding_format": encoding}).decode()


def bodies_of(texts: Sequence[str], encoding: str = "float") -> list[str]:
    """A body for each text."""
    return [body_of([text], encoding) for text in texts]


@contextmanager
def house(
    folder: Path,
    *,
    latency_ms: float = 0.0,
    stub_port: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[House]:
    """Stub, embedd and gateway, with all data and logs under `folder`; `env` is for embedd."""
    key, _ = KeyStore(folder / "data").create(KeyGrant(name="bench", scopes=("embed",)))
    latency = {"LATENCY_MS": str(latency_ms)}
    with (
        running("tests.bench.ollama_stub", folder, port=stub_port, env=latency) as stub,
        running("embedd", folder, env={"OLLAMA_HOST": stub.url, **(env or {})}) as embedd,
        running("gateway", folder, env={"GATEWAY_EMBEDD_URLS": embedd.url}) as gateway,
    ):
        yield House(gateway, embedd, stub, key)


class MemoryWatch:
    """Notes the memory of processes from a thread of its own: `(seconds, bytes)` for each look."""

    def __init__(self, daemons: Mapping[str, Running], interval_s: float) -> None:
        self._processes = {name: psutil.Process(daemon.process.pid) for name, daemon in daemons.items()}
        self._interval_s = interval_s
        self._started = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.samples: dict[str, list[tuple[float, int]]] = {name: [] for name in daemons}

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self._look()

    def _look(self) -> None:
        for name, process in self._processes.items():
            self.samples[name].append((time.monotonic() - self._started, process.memory_info().rss))

    def growth(self) -> dict[str, float]:
        """The highest look above the first, in megabytes."""
        return {
            name: (max(rss for _, rss in looks) - looks[0][1]) / MEGABYTE
            for name, looks in self.samples.items()
        }
