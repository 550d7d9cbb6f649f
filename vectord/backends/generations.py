"""Which folder a shard lies in: a rebuilt one is made beside the one in use, and takes its place at once.

All lie in the folder that a shard was made in: the first one right there, later ones in `generation-*`, and
`CURRENT` names the one that counts.
"""

import os
import pathlib
import secrets
import shutil
from collections.abc import Sequence
from typing import Final

from services import files

COPY_BYTES: Final = 8 * 1024 * 1024
POINTER: Final = "CURRENT"
PREFIX: Final = "generation-"


def current(folder: pathlib.Path) -> pathlib.Path:
    """The folder that holds what counts of the shard in `folder`. Raises OSError if that cannot be told."""
    try:
        name = (folder / POINTER).read_text()
    except FileNotFoundError:
        return folder
    if not name.startswith(PREFIX) or "/" in name:
        raise OSError(f"{folder / POINTER} does not name a part of this shard")
    return folder / name


def following(folder: pathlib.Path) -> pathlib.Path:
    """A place for the next one, where there is nothing yet."""
    return folder / f"{PREFIX}{secrets.token_hex(8)}"


def switch(folder: pathlib.Path, to: pathlib.Path) -> None:
    """Let `to` be the one that counts, also after a crash. It must be durable already (`sync`)."""
    files.replace(folder / POINTER, to.name.encode())


def tidy(folder: pathlib.Path) -> None:
    """Remove what came before, and what a rebuild left behind that did not come to its end."""
    keep = current(folder)
    for path in list(folder.iterdir()):
        ours = path.name.startswith(PREFIX) if keep == folder else path.name != POINTER
        if ours and path != keep:
            _remove(path)


def copy(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Copy what counts of the shard in `folder`. Its files are made large ahead of use: holes stay holes."""
    shutil.copytree(current(folder), target, ignore=_ours, copy_function=_copy_file)


def sync(folder: pathlib.Path) -> None:
    """Make a folder and all that is in it durable."""
    for root, _, inside in os.walk(folder):
        for name in inside:
            with pathlib.Path(root, name).open("rb") as file:
                os.fsync(file.fileno())
        files.sync_folder(pathlib.Path(root))


def _ours(_: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name == POINTER or name.startswith(PREFIX)]


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _copy_file(source: str, target: str) -> None:
    with pathlib.Path(source).open("rb") as read, pathlib.Path(target).open("wb") as write:
        size = os.fstat(read.fileno()).st_size
        at = 0
        while at < size:
            try:
                start = os.lseek(read.fileno(), at, os.SEEK_DATA)
            except OSError:  # nothing but a hole follows
                break
            at = os.lseek(read.fileno(), start, os.SEEK_HOLE)
            _copy_range(read.fileno(), write.fileno(), start, min(at, size))
        write.truncate(size)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        data = os.pread(source, min(COPY_BYTES, end - start), start)
        if not data:  # it became shorter meanwhile
            return
        os.pwrite(target, data, start)
        start += len(data)
