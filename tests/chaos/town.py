"""The platform as processes of the test's own, each of which can be killed, frozen and started again.

Models are stubs: an Ollama that embeds and a provider that chats, in no time.
"""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import httpx
import psutil

from services.keys import KeyGrant, KeyStore
from services.testing import free_port
from tests.bench.chat.house import CONFIG
from tests.chaos.netns import FAR, Network
from tests.processes import Running, started

DAEMONS: Final = ("embedd", "vectord", "chatd", "distill", "validators")
OLLAMA: Final = "tests.bench.ollama_stub"
PROVIDER: Final = "tests.bench.chat.upstream"
LOOPBACK: Final = "127.0.0.1"
RATE_MAX: Final = 10**9
COLLECTION: Final = "town"
DIMENSION: Final = 32
TIMEOUT_S: Final = 30.0


@dataclass(eq=False)
class Place:
    """Where one process runs, again and again: its port, its data and its settings stay.

    `program` takes the place of `-m module`, and `host` is where others find it.
    """

    module: str
    folder: Path
    stack: ExitStack
    env: Mapping[str, str]
    program: Sequence[str] | None = None
    host: str = LOOPBACK
    port: int = field(default_factory=free_port)
    running: Running | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def alive(self) -> Running:
        assert self.running is not None, f"{self.module} was never started"
        return self.running

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.alive.process.pid)

    def launch(self) -> None:
        """Start it; nothing is waited for."""
        running = self.stack.enter_context(
            started(self.module, self.folder, program=self.program, port=self.port, env=self.env)
        )
        self.running = replace(running, url=self.url)

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.launch()
        self.alive.wait_until_healthy()

    def kill(self) -> None:
        self.alive.kill()

    def stop(self) -> None:
        """Let it finish what it has. Raises `AssertionError` when it ends in another way."""
        assert self.alive.stop() == 0, self.alive.text()

    def freeze(self) -> None:
        self.alive.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        with suppress(ProcessLookupError):
            self.alive.process.send_signal(signal.SIGCONT)


@dataclass(frozen=True)
class Town:
    """What runs, and a key for all of it."""

    key: str
    ollamas: list[Place]
    places: dict[str, list[Place]]
    """By the name of the daemon, the gateways among them."""

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    @property
    def urls(self) -> list[str]:
        return [gateway.url for gateway in self.places["gateway"]]

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A client of the first gateway."""
        with httpx.Client(
            base_url=self.urls[0], headers=self.headers, timeout=TIMEOUT_S, trust_env=False
        ) as client:
            yield client

    def prepare(self) -> None:
        """Make the collection that the traffic writes to and searches in."""
        with self.client() as client:
            answer = client.put(
                f"/v1/collections/{COLLECTION}",
                json={"dimension": DIMENSION, "distance": "cosine", "engine": "edge"},
            )
            assert answer.status_code in {200, 201}, answer.text


@contextmanager
def town(
    folder: Path,
    *,
    daemons: Sequence[str] = DAEMONS,
    replicas: Mapping[str, int] | None = None,
    ollamas: int = 1,
    latency_ms: float = 0.0,
    env: Mapping[str, str] | None = None,
    away: Mapping[str, Network] | None = None,
    program: Callable[[str], Sequence[str]] | None = None,
) -> Iterator[Town]:
    """Start `daemons`, `replicas` of each (one unless given; of `gateway` too), over stubs of models.

    Replica number n of embedd asks Ollama number n, over and over. Each keeps its data in its folder
    (`data_of`); `env` is for all. Those that are `away` run in another network, the other daemons by
    `program`.
    """
    counts = dict(replicas or {})
    key, _ = KeyStore(folder / "keys").create(KeyGrant(name="town", rpm=RATE_MAX, tpm=RATE_MAX))
    with ExitStack() as stack:

        def place(module: str, number: int, settings: Mapping[str, str]) -> Place:
            its_env = {**(env or {}), **settings}
            its_folder = folder_of(folder, module, number)
            if away is None or module not in away:
                if program is None or module in (OLLAMA, PROVIDER):
                    return Place(module, its_folder, stack, its_env)
                return Place(module, its_folder, stack, its_env, program(module))
            its_env[f"{module.upper()}_HOST"] = FAR
            return Place(module, its_folder, stack, its_env, away[module].program(module), FAR)

        latency = {"LATENCY_MS": str(latency_ms)}
        backends = [place(OLLAMA, number, latency) for number in range(ollamas)]
        provider = place(PROVIDER, 0, {})
        config = folder / "chatd.toml"
        config.write_text(CONFIG.format(url=provider.url))
        places = {name: [place(name, n, {}) for n in range(counts.get(name, 1))] for name in DAEMONS}
        asks = {f"{name.upper()}_URL": places[name][0].url for name in DAEMONS}
        for name in daemons:
            for number, each in enumerate(places[name]):
                each.env = {
                    **each.env,
                    **{f"{name.upper()}_{other}": url for other, url in asks.items()},
                    "CHATD_CONFIG": str(config),
                    "OLLAMA_HOST": backends[number % ollamas].url,
                }
        urls = {
            f"GATEWAY_{name.upper()}_URLS": ",".join(each.url for each in places[name]) for name in DAEMONS
        }
        places = {name: places[name] for name in daemons}
        settings = {**urls, "STILLHOUSE_DATA": str(folder / "keys")}
        places["gateway"] = [place("gateway", n, settings) for n in range(counts.get("gateway", 1))]
        everybody = [*backends, provider, *(each for group in places.values() for each in group)]
        for each in everybody:
            each.launch()
        stack.callback(thaw_all, everybody)  # a frozen one does not hear that it shall stop
        for each in everybody:
            each.alive.wait_until_healthy()
        yield Town(key, backends, places)


def thaw_all(places: Sequence[Place]) -> None:
    for place in places:
        if place.running is not None:
            place.thaw()


def folder_of(folder: Path, module: str, number: int) -> Path:
    return folder / f"{module.rpartition('.')[2]}-{number}"


def data_of(folder: Path, module: str, number: int = 0) -> Path:
    """Where a replica keeps its data."""
    return folder_of(folder, module, number) / "data"
