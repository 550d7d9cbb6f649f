"""Real daemons as processes, for the tests that need a real port, a real SIGTERM or a real SIGKILL."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from services.testing import free_port

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 30.0
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0


def free_ports(names: Iterable[str]) -> dict[str, str]:
    """Ports for each daemon and up to four replicas of it, as the environment has them: `EMBEDD_PORT` …"""
    return {f"{name.upper()}_PORT": str(free_port(replicas=4)) for name in names}


@dataclass(frozen=True)
class Running:
    """A daemon of the test's own."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_TIMEOUT_S)

    def stop(self) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)

    def wait_until_healthy(self) -> None:
        """Return when it serves."""
        self._wait_for("/healthz", "ok", START_TIMEOUT_S)

    def wait_until_ready(self) -> None:
        """Return when it has everything that it needs; models take a while."""
        self._wait_for("/readyz", "ready", READY_TIMEOUT_S)

    def _wait_for(self, path: str, status: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"exited with {self.process.returncode}:\n{self.text()}")
            with suppress(httpx.TransportError):
                answer = httpx.get(f"{self.url}{path}", timeout=10.0, trust_env=False)
                if answer.json()["status"] == status:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{path} did not say {status!r} within {timeout_s:g} s:\n{self.text()}")


@contextmanager
def started(
    module: str,
    folder: Path,
    *,
    program: Sequence[str] | None = None,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[Running]:
    """`python -m module` on a free port, its data and its log under `folder`; stopped at the end.

    `program` takes the place of `-m module` where a test must change what runs. Nothing is waited for.
    """
    chosen = port or free_port()
    name = module.rpartition(".")[2]
    log = folder / f"{name}-{chosen}.log"  # not a pipe: a full one would stop the daemon
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "STILLHOUSE_DATA": str(folder / "data"),
        f"{name.upper()}_PORT": str(chosen),
        **(env or {}),
    }
    command = [sys.executable, *(program or ("-m", module))]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, cwd=folder, pass_fds=pass_fds
        )
    child = Running(process, f"http://127.0.0.1:{chosen}", log)
    try:
        yield child
    finally:
        if process.poll() is None:
            try:
                child.stop()
            except subprocess.TimeoutExpired:
                child.kill()


@contextmanager
def running(
    module: str,
    folder: Path,
    *,
    program: Sequence[str] | None = None,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """What `started` starts, once it serves."""
    with started(module, folder, program=program, port=port, env=env) as child:
        child.wait_until_healthy()
        yield child
