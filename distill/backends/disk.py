"""The disk under the log, as far as it can fail: writing, syncing, running full. A fake does fail."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """The calls whose failure the log must survive. Errors are `OSError`."""

    def write(self, fd: int, data: bytes) -> int:
        """Append `data` in one call; return how many bytes were taken, which may be fewer."""

    def sync(self, fd: int) -> None:
        """Return when what was written to `fd` is on the medium."""

    def free_bytes(self, folder: Path) -> int:
        """Bytes that may still be written under `folder`."""


class OsDisk:
    """The real one."""

    def write(self, fd: int, data: bytes) -> int:
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        os.fsync(fd)

    def free_bytes(self, folder: Path) -> int:
        stat = os.statvfs(folder)
        return stat.f_bavail * stat.f_frsize


@dataclass
class FakeDisk:
    """A disk that takes `capacity_bytes` and is then full, cutting the write at the limit as real ones do.

    `sync_fails` makes every sync fail, as a dying device does. `syncs` counts the ones that did not.
    """

    capacity_bytes: int = 1 << 40
    sync_fails: bool = False
    syncs: int = 0

    def write(self, fd: int, data: bytes) -> int:
        if self.capacity_bytes == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = os.write(fd, data[: self.capacity_bytes])
        self.capacity_bytes -= taken
        return taken

    def sync(self, fd: int) -> None:
        if self.sync_fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(fd)
        self.syncs += 1

    def free_bytes(self, folder: Path) -> int:
        assert folder.is_dir()
        return self.capacity_bytes
