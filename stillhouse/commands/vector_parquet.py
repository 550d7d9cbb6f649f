"""Points as a Parquet file: written page by page, read batch by batch, so that memory stays flat."""

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from schemas.vectors import Collection, ExportedPoint
from services.errors import InvalidRequest

COLLECTION: Final = b"stillhouse.collection"
ROWS_IN_GROUP: Final = 8192

Point = dict[str, Any]


class PointWriter:
    """Writes a file that is there only once the block has ended well.

    Columns: `id` (of text) or `id_number`, `role`, `text`, `payload` (JSON), `vector` (float32, of the
    collection's dimension). The file's metadata says what the collection is.
    """

    def __init__(self, path: Path, collection: Collection) -> None:
        self._path = path
        self._draft = path.with_name(f".{path.name}.part")
        self._dimension = collection.dimension
        described = collection.model_dump_json().encode()
        self._schema = pa.schema(
            [
                ("id", pa.string()),
                ("id_number", pa.int64()),
                ("role", pa.string()),
                ("text", pa.string()),
                ("payload", pa.string()),
                ("vector", pa.list_(pa.float32(), self._dimension)),
            ],
            metadata={COLLECTION: described},
        )
        self._held: list[ExportedPoint] = []
        self.rows = 0

    def __enter__(self) -> Self:
        self._writer = pq.ParquetWriter(self._draft, self._schema, compression="zstd")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write()
            self._writer.close()
            if kind is None:
                self._draft.replace(self._path)
        finally:
            self._draft.unlink(missing_ok=True)

    def add(self, points: Sequence[ExportedPoint]) -> None:
        self._held += points
        self.rows += len(points)
        if len(self._held) >= ROWS_IN_GROUP:
            self._write()

    def _write(self) -> None:
        if not self._held:
            return
        held, self._held = self._held, []
        raw = b"".join(base64.b64decode(point.vector) for point in held)
        vectors = pa.array(np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False))
        columns = [
            pa.array([point.id if isinstance(point.id, str) else None for point in held], pa.string()),
            pa.array([point.id if isinstance(point.id, int) else None for point in held], pa.int64()),
            pa.array([point.role for point in held], pa.string()),
            pa.array([point.text for point in held], pa.string()),
            pa.array([orjson.dumps(point.payload).decode() for point in held], pa.string()),
            pa.FixedSizeListArray.from_arrays(vectors, self._dimension),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))


class PointReader:
    """Reads such a file, or anybody's with a column `id` and one of `vector` and `text`."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = pq.ParquetFile(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise InvalidRequest(f"{path} cannot be read as Parquet: {error}") from error
        names = set(self._file.schema_arrow.names)
        if "id" not in names or not names & {"vector", "text"}:
            raise InvalidRequest(f"{path} has no columns `id` and `vector` or `text`, but {sorted(names)}")
        self._columns = sorted(names & {"id", "id_number", "role", "text", "payload", "vector"})
        if "vector" in names and not _are_vectors(self._file.schema_arrow.field("vector").type):
            raise InvalidRequest(f"{path}: the column `vector` holds no lists of numbers")
        self.rows: int = self._file.metadata.num_rows
        described = (self._file.schema_arrow.metadata or {}).get(COLLECTION)
        try:
            self.collection = Collection.model_validate_json(described) if described is not None else None
        except ValidationError as error:
            raise InvalidRequest(f"{path} was written by another version of `vector export`") from error

    def points(self, batch: int, *, texts_only: bool = False) -> Iterator[list[Point]]:
        """Points as an upsert takes them, `batch` at a time. `texts_only`: no vector beside a text."""
        done = 0
        batches = self._file.iter_batches(batch_size=batch, columns=self._columns)
        while True:
            try:
                rows = next(batches, None)
                points = (
                    [_point(row, texts_only=texts_only) for row in _rows(rows)] if rows is not None else None
                )
            except (OSError, ValueError) as error:  # a page that is not whole, a payload that is no JSON
                raise InvalidRequest(
                    f"the file cannot be read from row {done} on: {error}; {done} points are written"
                ) from error
            if points is None:
                return
            yield points
            done += len(points)


def _are_vectors(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    return bool(pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows, with the vectors of float32 columns as their bytes: lists of numbers would be slow."""
    columns = {name: batch.column(name) for name in batch.schema.names}
    vectors = columns.pop("vector", None)
    plain = {name: column.to_pylist() for name, column in columns.items()}
    for number in range(batch.num_rows):
        row = {name: values[number] for name, values in plain.items()}
        if vectors is not None and vectors[number].is_valid:
            values = vectors[number].values.to_numpy(zero_copy_only=False)
            row["vector"] = base64.b64encode(values.astype("<f4").tobytes()).decode()
        yield row


def _point(row: dict[str, Any], *, texts_only: bool) -> Point:
    key = row["id"] if row["id"] is not None else row.get("id_number")
    point: Point = {"id": key}
    for name in ("role", "text", "vector"):
        if row.get(name) is not None:
            point[name] = row[name]
    if texts_only and point.get("text"):
        point.pop("vector", None)
    payload = row.get("payload")
    if payload is not None:
        point["payload"] = orjson.loads(payload) if isinstance(payload, str) else payload
    return point
