"""The run folder: who supervises this data folder, and which processes run."""

import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import psutil
from pydantic import AwareDatetime, ValidationError

from schemas.base import Model
from services import files
from services.errors import Conflict, Unavailable

ProcessState = Literal["starting", "ready", "restarting", "failed", "stopping"]

CLOCK_SLACK = timedelta(seconds=2)  # the kernel's start times are rounded


class ProcessEntry(Model):
    """One process as the supervisor knows it. `pid` is None while there is none.

    `failed` says that it died several times in a row without becoming ready; it is tried again all the same.
    """

    name: str
    replica: int
    pid: int | None
    port: int
    url: str
    state: ProcessState
    started_at: AwareDatetime | None
    restarts: int


class RunFile(Model):
    """What `<data>/run/supervisor.json` holds."""

    pid: int
    started_at: AwareDatetime
    processes: tuple[ProcessEntry, ...]

    @property
    def ready(self) -> bool:
        """Whether every process is."""
        return all(process.state == "ready" for process in self.processes)


class RunFolder:
    """`<data>/run`: the lock that keeps a second supervisor out, and the run file."""

    def __init__(self, data: Path) -> None:
        self.path = data / "run" / "supervisor.json"
        self._lock_path = self.path.with_suffix(".lock")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one supervisor of this data folder. Raises `Conflict` when there is another."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            held = files.lock(self._lock_path)
        except BlockingIOError:
            raise Conflict(self._who()) from None
        except OSError as error:
            raise Unavailable(f"the folder {self.path.parent} is not usable: {error.strerror}") from error
        with held:
            yield
            self.path.unlink(missing_ok=True)

    def _who(self) -> str:
        run = self.read()
        pid = f" (pid {run.pid})" if run is not None else ""
        return (
            f"another supervisor{pid} runs on the data folder {self.path.parent.parent};"
            " stop it first, or set STILLHOUSE_DATA"
        )

    def write(self, run: RunFile) -> None:
        """Replace the run file as a whole, so that a reader never sees half of it."""
        files.replace(self.path, run.model_dump_json(indent=2).encode() + b"\n")

    def read(self) -> RunFile | None:
        """What runs, or None when no supervisor does; one that was killed leaves a file behind."""
        try:
            run = RunFile.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise Unavailable(f"the run file {self.path} cannot be read: {type(error).__name__}") from error
        return run if is_process(run.pid, run.started_at) else None


def is_process(pid: int, started_at: datetime) -> bool:
    """Whether that pid still is the process that was there at `started_at`, not a later one of its number."""
    try:
        process = psutil.Process(pid)
        born = datetime.fromtimestamp(process.create_time(), tz=started_at.tzinfo)
        return process.status() != psutil.STATUS_ZOMBIE and born <= started_at + CLOCK_SLACK
    except psutil.NoSuchProcess:
        return False
