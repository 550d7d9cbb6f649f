"""One set of daemons for all end-to-end tests: `stillhouse up`, real models, a small sample world."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from services.keys import KeyGrant, KeyStore
from services.testing import free_port
from stillhouse.supervisor import RunFile, running
from stillhouse.world import Spec, write
from tests.generate import DAEMONS
from tests.processes import free_ports


@dataclass(frozen=True)
class House:
    """Daemons that run, the folder they live in, and a key that may do everything."""

    run: RunFile
    data: Path
    world: Path
    key: str

    def url(self, daemon: str) -> str:
        return next(entry.url for entry in self.run.processes if entry.name == daemon)

    def client(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url("gateway"), headers=headers, timeout=60, trust_env=False)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    data, world = folder / "data", folder / "world"
    write(world, Spec(workers=500))
    key, _ = KeyStore(data).create(KeyGrant(name="e2e"))
    environment = {
        **free_ports(DAEMONS),
        "VALIDATORS_ROSTER": str(world / "roster.parquet"),
        "OLLAMA_HOST": f"http://127.0.0.1:{free_port()}",  # nothing is there, so modeld is started
    }
    with running(data, log=folder / "up.log", environment=environment) as run:
        yield House(run, data, world, key)


@pytest.fixture(autouse=True)
def _sockets(socket_enabled: None) -> None:
    """These tests talk to real ports."""
