"""A supervisor in the background, for programs that need the daemons for a while: the demo, tests."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from services.errors import Unavailable
from stillhouse.supervisor.runfile import RunFile, RunFolder

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
POLL_S = 0.05
TAIL_BYTES = 2000


@contextlib.contextmanager
def running(
    data: Path,
    *arguments: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = (sys.executable, "-P", "-m", "stillhouse", "up"),
) -> Iterator[RunFile]:
    """Run `stillhouse up *arguments` on a data folder for the length of the block.

        with running(tmp, "gateway", "embedd", "--scale", "embedd=2", log=tmp / "up.log") as run:
            httpx.get(f"{run.processes[0].url}/readyz")

    Enters when every daemon is ready. The output goes to `log`. `environment` is added to our own, so that
    `{"GATEWAY_PORT": "0"}`-like choices of ports are made there. When this process is killed, the supervisor
    and its daemons stop by themselves.

    Raises `Unavailable`, with the end of the log, when the supervisor ends or is not ready in time, and when
    it has to be killed at the end.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    read_end, write_end = os.pipe()
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            part for part in (_package_parent(), os.environ.get("PYTHONPATH")) if part
        ),
        **(environment or {}),
        "STILLHOUSE_DATA": str(data.resolve()),
        "STILLHOUSE_LIFELINE_FD": str(read_end),
    }
    try:
        with log.open("wb") as out:
            child = subprocess.Popen(
                [*command, *arguments],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(read_end,),
            )
        try:
            yield _wait_ready(child, RunFolder(data.resolve()), log)
        finally:
            _stop(child, log)
    finally:
        os.close(read_end)
        os.close(write_end)


def _package_parent() -> str:
    return str(Path(__file__).resolve().parents[2])


def _wait_ready(child: subprocess.Popen[bytes], folder: RunFolder, log: Path) -> RunFile:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise Unavailable(f"the supervisor ended with status {child.returncode}:\n{_tail(log)}")
        run = folder.read()
        if run is not None and run.pid == child.pid and run.ready:
            return run
        time.sleep(POLL_S)
    raise Unavailable(f"the daemons were not ready within {READY_TIMEOUT_S:g} s:\n{_tail(log)}")


def _stop(child: subprocess.Popen[bytes], log: Path) -> None:
    """Ask, then kill; the daemons see the lifeline close and stop by themselves."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        raise Unavailable(
            f"the supervisor had to be killed after {STOP_TIMEOUT_S:g} s:\n{_tail(log)}"
        ) from None


def _tail(log: Path) -> str:
    return log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
