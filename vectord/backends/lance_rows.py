"""What a row of a Lance dataset is, and how rows are asked for."""

from collections.abc import Sequence
from typing import Final

import orjson
import pyarrow as pa

from schemas.vectors import PointId
from vectord.backends.ids import StoredId, decode_cursor, stored_id
from vectord.backends.store import Record, RoleScope, ShardSpec, Where
from vectord.backends.terms import render, test_of

STAMP: Final = b"stillhouse"
KEPT: Final = ["id", "text", "role", "role_key", "json"]


def schema(spec: ShardSpec) -> pa.Schema:
    """Our columns; a payload has none of its own, so none can be taken for ours."""
    key = {"lance-schema:unenforced-primary-key": "true"}  # two writers of one new id: one of them retries
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False, metadata=key),
            pa.field("id", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), spec.dimension), nullable=False),
            pa.field("text", pa.string()),
            pa.field("role", pa.string()),
            pa.field("role_key", pa.string()),
            pa.field("json", pa.string(), nullable=False),
            pa.field("terms", pa.list_(pa.field("item", pa.int64(), nullable=False)), nullable=False),
            pa.field("words", pa.string()),
        ],
        metadata={STAMP: spec.stamp().encode()},
    )


def columns(*, with_vector: bool) -> list[str]:
    return [*KEPT, "vector"] if with_vector else KEPT


def records_of(table: pa.Table) -> list[Record]:
    columns = [table[name].to_pylist() for name in KEPT]
    vectors = table["vector"].to_pylist() if "vector" in table.column_names else [[]] * len(table)
    return [
        Record(orjson.loads(key), vector, text, role, role_key, orjson.loads(payload))
        for (key, text, role, role_key, payload), vector in zip(
            zip(*columns, strict=True), vectors, strict=True
        )
    ]


def key(point: PointId) -> str:
    return key_of(stored_id(point))


def key_of(stored: StoredId) -> str:
    """Numbers first, each as long as any; then the hashes of strings."""
    return f"n{stored:016d}" if isinstance(stored, int) else f"u{stored.hex}"


def stored_of(key: str) -> StoredId:
    return int(key[1:]) if key[0] == "n" else decode_cursor(key)


def condition(where: Where) -> str | None:
    parts = []
    if where.scope is not None:
        parts.append(_scope(where.scope))
    if where.ids is not None:
        keys = [key(item) for item in where.ids]
        parts.append(f"key IN ({quoted(keys)})" if keys else "false")
    if where.filter is not None:
        parts.append(render(test_of(where.filter), any_of))
    return " AND ".join(f"({part})" for part in parts) if parts else None


def _scope(scope: RoleScope) -> str:
    allowed = []
    if scope.keys:
        allowed.append(f"role_key IN ({quoted(sorted(scope.keys))})")
    if scope.without_role:
        allowed.append("role_key IS NULL")
    return " OR ".join(allowed) if allowed else "false"


def any_of(terms: Sequence[int]) -> str:
    return f"array_has_any(terms, [{', '.join(map(str, terms))}])"


def both(first: str, second: str | None) -> str:
    return first if second is None else f"({first}) AND ({second})"


def quoted(texts: Sequence[str]) -> str:
    """SQL strings; a quote in one is doubled, and nothing else has a meaning there."""
    return ", ".join("'" + text.replace("'", "''") + "'" for text in texts)
