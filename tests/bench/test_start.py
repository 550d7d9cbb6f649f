"""How long the daemons take to be ready, and how much memory they take when nobody asks."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from services.testing import free_port
from stillhouse.supervisor import RunFile, running
from tests.generate import DAEMONS
from tests.processes import free_ports
from tests.processes import running as process

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket]

ROUNDS = 3
SEVEN_READY_S_MAX = 8.0
SIX_READY_S_MAX = 4.0
SIX_RSS_BYTES_MAX = 600 * 1024 * 1024


@pytest.fixture(scope="module")
def ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A modeld that runs already, so that `up` starts only the other six."""
    with process("modeld", tmp_path_factory.mktemp("ollama")) as modeld:
        yield modeld.url


def environment(ollama_url: str) -> dict[str, str]:
    return {**free_ports(DAEMONS), "OLLAMA_HOST": ollama_url}


def all_ready(run: RunFile) -> bool:
    return all(
        httpx.get(f"{entry.url}/readyz", trust_env=False).status_code == 200 for entry in run.processes
    )


def ready_s(folder: Path, ollama_url: str, count: int) -> float:
    started = time.monotonic()
    with running(folder / "data", log=folder / "up.log", environment=environment(ollama_url)) as run:
        seconds = time.monotonic() - started
        assert len(run.processes) == count
        assert all_ready(run)
    return seconds


def rss_bytes(pid: int) -> int:
    """A daemon's resident memory, with that of the processes it has started."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


def test_seven_daemons_are_ready(tmp_path: Path) -> None:
    rounds = [ready_s(tmp_path / str(n), f"http://127.0.0.1:{free_port()}", 7) for n in range(ROUNDS)]
    print(
        f"\nseven daemons ready: median {statistics.median(rounds):.2f} s of {[round(s, 2) for s in rounds]}"
    )
    assert statistics.median(rounds) <= SEVEN_READY_S_MAX


def test_six_daemons_are_ready(tmp_path: Path, ollama: str) -> None:
    rounds = [ready_s(tmp_path / str(n), ollama, 6) for n in range(ROUNDS)]
    print(f"\nsix daemons ready: median {statistics.median(rounds):.2f} s of {[round(s, 2) for s in rounds]}")
    assert statistics.median(rounds) <= SIX_READY_S_MAX


def test_six_daemons_idle(tmp_path: Path, ollama: str) -> None:
    with running(tmp_path / "data", log=tmp_path / "up.log", environment=environment(ollama)) as run:
        time.sleep(2)
        rss = {entry.name: rss_bytes(entry.pid) for entry in run.processes if entry.pid}
    total = sum(rss.values())
    print(f"\nsix daemons idle: {total / 2**20:.0f} MB RSS", {n: round(b / 2**20) for n, b in rss.items()})
    assert total <= SIX_RSS_BYTES_MAX
