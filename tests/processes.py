"""Real daemons as processes, for the tests that need a real port, a real SIGTERM or a real SIGKILL."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from services.testing import free_port

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Running:
    """A daemon that answers `/healthz`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_TIMEOUT_S)

    def stop(self) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"exited with {process.returncode}:\n{log.read_text()}")
        try:
            if httpx.get(f"{url}/healthz", timeout=1.0, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"not healthy within {START_TIMEOUT_S:g} s:\n{log.read_text()}")


@contextmanager
def running(
    module: str, folder: Path, *, port: int | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """`python -m module` on a free port, its data and its log under `folder`; stopped at the end."""
    chosen = port or free_port()
    name = module.rpartition(".")[2]
    log = folder / f"{name}-{chosen}.log"
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "STILLHOUSE_DATA": str(folder / "data"),
        f"{name.upper()}_PORT": str(chosen),
        **(env or {}),
    }
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module], env=environment, stdout=out, stderr=out, cwd=folder
        )
    started = Running(process, f"http://127.0.0.1:{chosen}", log)
    try:
        wait_until_healthy(started.url, process, log)
        yield started
    finally:
        if process.poll() is None:
            try:
                started.stop()
            except subprocess.TimeoutExpired:
                started.kill()
