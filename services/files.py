"""Files that are there whole or not at all, and lock files that one process holds at a time."""

import contextlib
import fcntl
import os
import secrets
import time
from pathlib import Path
from typing import IO, Final

LOCK_POLL_S: Final = 0.01


def replace(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that a reader, or a crash, meets the old one or the new one and nothing between.

    Returns when the new one is on the medium. The umask is taken from `mode`. Raises `OSError`; the file then
    is the old one or the new one.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")  # nobody else writes to this one
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            put_in_place(file, temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def put_in_place(file: IO[bytes], temporary: Path, path: Path) -> None:
    """Make what was written to `file`, which is `temporary`, durable under the name `path`; closes it."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names that were created, replaced or removed in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(path: Path, *, timeout_s: float = 0.0) -> IO[bytes]:
    """Hold a lock file, which is made if need be, until the returned file is closed or the process ends.

    The file may say who holds it; it is opened for that, and what it said before is kept. Blocks for up to
    `timeout_s`, then raises `BlockingIOError`; other `OSError`s mean that the file cannot be opened.
    """
    deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as stack:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        file = stack.enter_context(os.fdopen(descriptor, "r+b", buffering=0))
        while not _is_taken(descriptor):
            if time.monotonic() >= deadline:
                raise BlockingIOError(f"another process holds {path}")
            time.sleep(LOCK_POLL_S)
        stack.pop_all()
        return file


def _is_taken(descriptor: int) -> bool:
    """Take the lock unless another has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
