"""Notes that a stage leaves for its next run, signed: work is taken as done on nobody else's word.

Without that, whoever can write to the folder could change a finished file and the note that names its hash,
and the next run of the stage would vouch for both.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import orjson

from distill.engine import dsse, keys
from distill.engine.dsse import NotVerified
from distill.engine.keys import SigningKey
from schemas.canonical import canonical_bytes
from services import files

NOTE: Final = "application/vnd.stillhouse.note+json"


def keep(data: Path, path: Path, value: Any) -> None:
    """Leave a note below the data folder, whole or not at all. Raises what loading the key raises."""
    payload = canonical_bytes({"of": path.name, "is": value})
    files.replace(path, dsse.seal(payload, NOTE, _key(data)))


def kept(data: Path, path: Path) -> Any | None:
    """What a note says; None when there is none, or none that was left here under this name."""
    try:
        note = orjson.loads(dsse.open_sealed(path.read_bytes(), NOTE, _key(data).public))
    except (FileNotFoundError, NotVerified):
        return None
    return note["is"] if note["of"] == path.name else None


@lru_cache(maxsize=2)
def _loaded(data: Path, _: tuple[int, int]) -> SigningKey:
    return keys.load(data)


def _key(data: Path) -> SigningKey:
    """The key, read once for as long as its file stays the same: there is a note for every shard."""
    try:
        found = keys.private_path(data).stat()
    except FileNotFoundError:
        return keys.load(data)  # says what is missing
    return _loaded(data, (found.st_ino, found.st_mtime_ns))
