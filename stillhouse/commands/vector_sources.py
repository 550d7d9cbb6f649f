"""Public data to measure on: GloVe's word vectors, and WordNet's glosses."""

import ast
import base64
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

MAGIC: Final = b"\x93NUMPY"
FLOATS: Final = "<f4"
PARTS_OF_SPEECH: Final = ("noun", "verb", "adj", "adv")


class Unreadable(Exception):
    """The file is not what it should be; the message says why."""


@dataclass(frozen=True)
class Source:
    """Points to store, and how many there are; `dimension` of their vectors, or None for texts."""

    count: int
    dimension: int | None
    points: Iterator[dict[str, Any]]


def glove(path: Path, limit: int | None) -> Source:
    """Rows of a `.npy` file of float32, or of the largest one in a wheel. Raises `Unreadable`."""
    if path.suffix == ".npy":
        file: IO[bytes] = path.open("rb")
    else:
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile:
            raise Unreadable(f"{path} is neither a .npy file nor a wheel with one") from None
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        if not members:
            raise Unreadable(f"{path} holds no .npy file")
        file = archive.open(max(members, key=lambda member: member.file_size))
    try:
        rows, dimension = _shape(file, path)
    except BaseException:
        file.close()
        raise
    count = rows if limit is None else min(rows, limit)
    return Source(count, dimension, _rows(file, count, dimension))


def _shape(file: IO[bytes], path: Path) -> tuple[int, int]:
    """Rows and columns, as the file's head says; it is read up to the first number."""
    head = file.read(8)
    if head[:6] != MAGIC:
        raise Unreadable(f"{path}: this is no .npy file")
    wide = head[6] > 1
    try:
        (length,) = struct.unpack("<I" if wide else "<H", file.read(4 if wide else 2))
        told = ast.literal_eval(file.read(length).decode("latin-1"))
        shape, descr, by_columns = told["shape"], told["descr"], told["fortran_order"]
    except (struct.error, SyntaxError, ValueError, LookupError, TypeError):
        raise Unreadable(f"{path}: the head of the .npy file is not whole") from None
    if descr != FLOATS or by_columns or len(shape) != 2:
        raise Unreadable(f"{path}: rows of little-endian float32 numbers are needed")
    return shape[0], shape[1]


def _rows(file: IO[bytes], count: int, dimension: int) -> Iterator[dict[str, Any]]:
    with file:
        for number in range(count):
            yield {"id": number, "vector": base64.b64encode(file.read(4 * dimension)).decode("ascii")}


def wordnet(path: Path, limit: int | None) -> Source:
    """The glosses of a WordNet folder, the one with `data.noun`. Raises `Unreadable`."""
    folder = path if (path / "data.noun").exists() else path / "dict"
    if not (folder / "data.noun").exists():
        raise Unreadable(f"{path} has no data.noun; it should be WordNet's folder `dict`")
    try:
        texts = list(_glosses(folder))[:limit]
    except UnicodeDecodeError as error:
        raise Unreadable(f"{folder}: {error}") from None
    points = ({"id": name, "text": text} for name, text in texts)
    return Source(len(texts), None, points)


def _glosses(folder: Path) -> Iterator[tuple[str, str]]:
    for part in PARTS_OF_SPEECH:
        with (folder / f"data.{part}").open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith(" "):  # the licence
                    continue
                words, _, gloss = line.partition(" | ")
                if gloss.strip():
                    yield f"{part}-{words[:8]}", gloss.strip()
