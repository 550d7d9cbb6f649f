"""A disk that takes its time: a file system of its own, with a limit on some processes' writes a second."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import pytest

CGROUPS: Final = Path("/sys/fs/cgroup")
TOOLS: Final = ("losetup", "mkfs.ext4", "mount", "umount")
DISK_BYTES: Final = 1024 * 1024 * 1024
"""A file with holes: it takes what is written and no more."""

WRITES_A_SECOND: Final = 4
"""A write with its fsync takes a quarter to half a second then."""

TIMEOUT_S: Final = 30.0


@dataclass(frozen=True)
class Limit:
    """A group of processes, and the file that says how fast they may write to a device."""

    group: Path
    file: str
    line: str
    unlimited: str

    def set(self, device: str, writes_a_second: int | None) -> None:
        value = self.unlimited if writes_a_second is None else str(writes_a_second)
        (self.group / self.file).write_text(self.line.format(device=device, value=value))

    def take(self, processes: Iterable[int]) -> None:
        """Put processes into the group; those that they start from now on are in it as well."""
        for process in processes:
            (self.group / "cgroup.procs").write_text(str(process))

    def dissolve(self) -> None:
        for process in (self.group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                (self.group.parent / "cgroup.procs").write_text(process)
        self.group.rmdir()


@dataclass(frozen=True)
class SlowDisk:
    """The disk at `folder`: as fast as any, until it is told otherwise."""

    folder: Path
    device: str
    limit: Limit

    def slow_down(self, daemon: psutil.Process) -> None:
        """For a daemon and the processes that work for it."""
        self.limit.take(each.pid for each in (daemon, *daemon.children(recursive=True)))
        self.limit.set(self.device, WRITES_A_SECOND)

    def speed_up(self) -> None:
        self.limit.set(self.device, None)


@contextmanager
def slow_disk(folder: Path, image: Path) -> Iterator[SlowDisk]:
    """Mount the file `image` at `folder`. Skips the test where that, or the limit, cannot be had."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"there is no {missing[0]}")
    with ExitStack() as stack:
        limit = stack.enter_context(_limited(f"stillhouse-{os.getpid()}"))
        with image.open("wb") as file:
            file.truncate(DISK_BYTES)
        stack.callback(image.unlink)
        folder.mkdir(parents=True)
        try:
            _run("mkfs.ext4", "-q", str(image))
            loop = _run("losetup", "--find", "--show", str(image))
            stack.callback(_run, "losetup", "--detach", loop)
            _run("mount", loop, str(folder))
            stack.callback(_run, "umount", str(folder))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"{error.cmd[0]} fails here: {error.stderr.strip()}")
        number = Path(loop).stat().st_rdev
        yield SlowDisk(folder, f"{os.major(number)}:{os.minor(number)}", limit)


def _run(*command: str) -> str:
    """What it says. Raises `CalledProcessError`."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    return done.stdout.strip()


@contextmanager
def _limited(name: str) -> Iterator[Limit]:
    """By the second version of control groups where that is what the machine has, else by the first."""
    if (CGROUPS / "cgroup.controllers").exists():
        limit = Limit(CGROUPS / name, "io.max", "{device} wiops={value}", "max")
    else:
        limit = Limit(CGROUPS / "blkio" / name, "blkio.throttle.write_iops_device", "{device} {value}", "0")
    try:
        limit.group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group may be made here: {error.strerror}")
    try:
        if not (limit.group / limit.file).exists():
            pytest.skip(f"control groups have no {limit.file} here")
        yield limit
    finally:
        limit.dissolve()
