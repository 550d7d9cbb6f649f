"""A gateway and a chatd as processes, everything on, over a provider that answers at once."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
import psutil

from services.keys import KeyGrant, KeyStore
from tests.bench.load import Load
from tests.processes import Running, running

MEGABYTE: Final = 1024 * 1024

CONFIG: Final = """
[providers.mock]
type = "openai"
base_url = "{url}/v1"
concurrency_max = 1000
rpm = 1000000000
tpm = 1000000000

[aliases.fast]
candidates = ["mock/instant", "mock/other"]

[prices."mock/instant"]
"/prompt_tokens" = 0.5
"/completion_tokens" = 1.5

[budgets]
usd_a_day = 1000000.0
"""

MESSAGES: Final = [
    {"role": "system", "content": "You help a staffing agency. Answer in one sentence."},
    {"role": "user", "content": "Is the forklift shift in Dayton on Tuesday filled?"},
]


def body_of(model: str, *, stream: bool = False) -> str:
    return orjson.dumps({"model": model, "messages": MESSAGES, "temperature": 0.2, "stream": stream}).decode()


@dataclass(frozen=True)
class House:
    """What runs, and a key for it."""

    gateway: Running
    chatd: Running
    upstream: Running
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}", "content-type": "application/json"}

    def load(
        self,
        model: str = "fast",
        *,
        path: str = "/v1/chat/completions",
        stream: bool = False,
        straight: bool = False,
        connections: int = 32,
        seconds: float = 4.0,
    ) -> Load:
        url = self.upstream.url if straight else self.gateway.url
        bodies = [body_of(model, stream=stream)]
        return Load(url + path, bodies, self.headers, connections, seconds)

    def cpu_s(self) -> dict[str, float]:
        """Processor time that each has used so far."""
        return {
            name: sum(psutil.Process(daemon.process.pid).cpu_times()[:2])
            for name, daemon in (("gateway", self.gateway), ("chatd", self.chatd))
        }

    def rss_mb(self) -> float:
        """Memory of chatd."""
        return float(psutil.Process(self.chatd.process.pid).memory_info().rss) / MEGABYTE


@contextmanager
def house(folder: Path, *, env: Mapping[str, str] | None = None) -> Iterator[House]:
    """Provider, chatd and gateway, with all data and logs under `folder`; `env` is for chatd."""
    key, _ = KeyStore(folder / "data").create(KeyGrant(name="bench", rpm=10**9, tpm=10**9))
    with running("tests.bench.chat.upstream", folder) as upstream:
        config = folder / "chatd.toml"
        config.write_text(CONFIG.format(url=upstream.url))
        settings = {"CHATD_CONFIG": str(config), "CHATD_DISTILL_URL": upstream.url, **(env or {})}
        with (
            running("chatd", folder, env=settings) as chatd,
            running("gateway", folder, env={"GATEWAY_CHATD_URLS": chatd.url}) as gateway,
        ):
            yield House(gateway, chatd, upstream, key)
