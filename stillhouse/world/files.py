"""A world as a folder of files, complete or not there."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow.parquet as pq

from schemas.artifacts import JobOrder
from stillhouse.world.catalogue import role_catalogue
from stillhouse.world.records import Spec
from stillhouse.world.roster import SCHEMA
from stillhouse.world.world import World, generate

MANIFEST: Final = "world.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `write` wrote: records and sha256 of each file, as `world.json` has them too."""

    folder: Path
    counts: dict[str, int]
    sha256: dict[str, str]


def write(folder: Path, spec: Spec, *, progress: Callable[[int], None] | None = None) -> Manifest:
    """Write a world to a folder, which is made if need be; files of an earlier world are replaced.

    Every file is complete before it gets its name, and `world.json` is the last, so its sha256 values tell
    whether the others belong to it. `progress` is called with the number of workers written so far. Raises
    `OSError` when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    world = generate(spec)
    with tempfile.TemporaryDirectory(prefix=".world-", dir=folder) as name:
        unfinished = Path(name)
        counts = {
            "roster.parquet": _write_roster(unfinished / "roster.parquet", world, progress),
            "orders.jsonl": _write_lines(unfinished / "orders.jsonl", map(_order, world.orders)),
            "playbooks.jsonl": _write_lines(unfinished / "playbooks.jsonl", map(asdict, world.playbooks)),
            "messages.jsonl": _write_lines(unfinished / "messages.jsonl", map(asdict, world.messages)),
            "roles.json": _write_document(unfinished / "roles.json", role_catalogue()),
        }
        hashes = {file: _sha256(unfinished / file) for file in counts}
        _write_document(unfinished / MANIFEST, _manifest(world, counts, hashes))
        for file in (*counts, MANIFEST):
            (unfinished / file).replace(folder / file)
    return Manifest(folder, counts, hashes)


def _manifest(world: World, counts: dict[str, int], hashes: dict[str, str]) -> dict[str, Any]:
    spec = asdict(world.spec)
    return {
        "seed": spec["seed"],
        "as_of": spec["as_of"],
        "spec": spec,
        "files": {file: {"records": counts[file], "sha256": hashes[file]} for file in counts},
        "demo": {
            "order": _order(world.demo.order),
            "valid": list(world.demo.valid),
            "invalid": [asdict(trap) for trap in world.demo.invalid],
        },
    }


def _order(order: JobOrder) -> dict[str, Any]:
    """The order as a fill check's `context.order`: an age limit that does not exist is left out."""
    return order.model_dump(mode="json", exclude_none=True)


def _write_roster(path: Path, world: World, progress: Callable[[int], None] | None) -> int:
    rows = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", compression_level=3) as writer:
        for batch in world.roster():
            writer.write_batch(batch, row_group_size=batch.num_rows)
            rows += batch.num_rows
            if progress is not None:
                progress(rows)
    return rows


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> int:
    count = 0
    with path.open("wb") as file:
        for record in records:
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def _write_document(path: Path, value: dict[str, Any]) -> int:
    path.write_bytes(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_INDENT_2))
    return 1


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
