"""Files that are read here and there: the ones used last are held open, and never more than a process may."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Final, Self

OPEN_MAX: Final = 64


class OpenFiles:
    """Reads pieces of many files. For one thread; closes them at the end of the block, or with itself."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """The bytes at a place, fewer where the file ends before. Raises `OSError`."""
        descriptor = self._open.pop(path, None)
        if descriptor is None:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._open[path] = descriptor
        if len(self._open) > OPEN_MAX:
            os.close(self._open.popitem(last=False)[1])
        return os.pread(descriptor, length, offset)
