"""A validators daemon with a large made-up roster, and proposals that it accepts."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import psutil

from stillhouse.world import Spec, write
from tests.bench.load import Load
from tests.processes import Running, started

WORKERS: Final = 500_000
ORDERS: Final = 400
FILLS: Final = 3
PATH: Final = "/v1/validate"
TIMEOUT_S: Final = 60.0
MEGABYTE: Final = 1024 * 1024
JSON: Final = {"content-type": "application/json"}


@dataclass(frozen=True)
class Agency:
    """The daemon, and how long it took from its start until it had the roster."""

    daemon: Running
    ready_s: float

    @property
    def memory_mb(self) -> float:
        """Resident, with any process that it has started."""
        process = psutil.Process(self.daemon.process.pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / MEGABYTE

    def load(self, bodies: Sequence[str], *, connections: int = 32, seconds: float = 5.0) -> Load:
        return Load(f"{self.daemon.url}{PATH}", bodies, JSON, connections, seconds)


def make_world(folder: Path) -> Path:
    """Write a world; returns the roster's path."""
    write(folder, Spec(workers=WORKERS, orders=ORDERS, notes_per_role=0, messages=0))
    return folder / "roster.parquet"


@contextmanager
def agency(folder: Path, roster: Path, env: Mapping[str, str] | None = None) -> Iterator[Agency]:
    """A daemon that has read the roster."""
    began = time.perf_counter()
    with started("validators", folder, env={"VALIDATORS_ROSTER": str(roster), **(env or {})}) as daemon:
        daemon.wait_until_ready()
        yield Agency(daemon, time.perf_counter() - began)


def proposals(daemon: Running, world: Path) -> list[str]:
    """Requests for orders of three, each with the workers whom the daemon itself suggests for it."""
    requests = []
    with httpx.Client(base_url=daemon.url, trust_env=False, timeout=TIMEOUT_S) as client:
        for line in (world / "orders.jsonl").read_bytes().splitlines():
            order: dict[str, Any] = orjson.loads(line) | {"count": FILLS}
            artifact: dict[str, Any] = {"order_id": order["order_id"], "fills": []}
            request = {"kind": "fill", "artifact": artifact, "context": {"order": order}}
            (short,) = client.post(PATH, json=request).raise_for_status().json()["findings"]
            if "fix" not in short:
                continue  # so many are not free
            artifact["fills"] = short["fix"]["value"]
            assert client.post(PATH, json=request).json()["ok"]
            requests.append(orjson.dumps(request).decode())
    assert len(requests) >= ORDERS // 2
    return requests
