"""When a collection outgrows its engine: told with the figures, decided by people."""

from typing import Final

from schemas.vectors import EngineAdvice, EngineName
from vectord.engine.disk import Manifest
from vectord.engine.limits import Limits

GRAPH_BYTES: Final = 400
"""What edge keeps in memory for a point besides its vector: the graph's links, the id maps."""

CODE_SHARE: Final = 16
"""Lance keeps one byte of code in memory for about four numbers of four bytes."""


def advise(manifest: Manifest, rows: int, limits: Limits) -> EngineAdvice:
    """What the present engine needs for `rows` points, against the settings' limits."""
    engine = manifest.engine
    memory = rows * memory_per_row(engine, manifest.dimension)
    rows_max, next_engine = _limits(engine, limits)
    move_to: EngineName | None = None
    reason = f"{engine} fits: neither rows nor memory are above their limits"
    if next_engine is None:
        reason = f"{engine} has no limit of this kind: it grows by machines"
    elif rows > rows_max:
        move_to, reason = next_engine, f"{rows} rows are more than the {rows_max} that suit {engine}"
    elif memory > limits.edge_memory_bytes_max:
        move_to, reason = (
            next_engine,
            f"about {memory} bytes of memory are more than the {limits.edge_memory_bytes_max} set for it",
        )
    return EngineAdvice(
        move_to=move_to,
        reason=reason,
        rows=rows,
        rows_max=rows_max,
        memory_bytes=memory,
        memory_bytes_max=limits.edge_memory_bytes_max,
    )


def memory_per_row(engine: EngineName, dimension: int) -> int:
    """Bytes of memory of this machine that a point costs."""
    full = 4 * dimension
    return {"edge": full + GRAPH_BYTES, "lance": full // CODE_SHARE + 16, "qdrant": 0}[engine]


def _limits(engine: EngineName, limits: Limits) -> tuple[int, EngineName | None]:
    if engine == "edge":
        return limits.edge_rows_max, "lance"
    if engine == "lance":
        return limits.lance_rows_max, "qdrant"
    return 0, None
