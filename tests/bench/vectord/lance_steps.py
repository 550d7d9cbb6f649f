"""Steps of the Lance bench, each in a process of its own, so that its memory is its own."""

import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from vectord.backends import Query, Record, ShardSpec, Where
from vectord.backends.engines import LanceOptions
from vectord.backends.lance import LanceStore

DIMENSION = 128
CLUSTERS = 2000
SPREAD = 0.6
CHUNK = 25_000
SEED = 20261122
K = 10
SPEC = ShardSpec(dimension=DIMENSION, distance="cosine", hybrid=False, engine="lance")

Vectors = npt.NDArray[np.float32]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Built:
    seconds_writing: float
    seconds_indexing: float
    memory_mb: float
    disk_mb: float


@dataclass(frozen=True)
class Searched:
    recall: float
    times_ms: list[float]
    memory_mb: float


def alone(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a step in a new process. Lance must not be forked."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(step, *args, **kwargs).result()


def drawn(part: int, count: int) -> Vectors:
    """Points around cluster centres, the same for the same part. Even noise would be unlike any real data:
    all points would be about equally far, and no partition near.
    """
    centres = np.random.default_rng(SEED).standard_normal((CLUSTERS, DIMENSION), np.float32)
    rng = np.random.default_rng((SEED, part))
    noise = rng.standard_normal((count, DIMENSION), np.float32)
    points = centres[rng.integers(0, CLUSTERS, count)] + SPREAD * noise
    unit: Vectors = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit


def build(folder: Path, start: int, end: int) -> Built:
    """Write the points from `start` to `end`, and bring the index up to date."""
    store = LanceStore(LanceOptions())
    if start == 0:
        store.create(folder, SPEC)
    shard = store.open(folder, SPEC)
    began = time.perf_counter()
    for first in range(start, end, CHUNK):
        vectors = drawn(first // CHUNK, CHUNK)
        shard.upsert(list(_records(first, vectors)))
    written = time.perf_counter()
    shard.optimize()
    shard.flush()
    seconds = time.perf_counter() - written
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Built(written - began, seconds, _memory_mb(), disk / 1e6)


def _records(first: int, vectors: Vectors) -> Iterator[Record]:
    for number, vector in enumerate(vectors, start=first):
        yield Record(number, vector, payload={"bucket": number % 100})


def truth(rows: int, queries: int) -> list[list[int]]:
    """The nearest of each query, by comparing every point."""
    asked = drawn(-1 % 2**31, queries)
    scores = np.full((queries, K), -np.inf, np.float32)
    ids = np.zeros((queries, K), np.int64)
    for first in range(0, rows, CHUNK):
        near = asked @ drawn(first // CHUNK, CHUNK).T
        together = np.hstack([scores, near])
        numbers = np.hstack([ids, np.broadcast_to(np.arange(first, first + CHUNK), near.shape)])
        best = np.argpartition(-together, K, axis=1)[:, :K]
        scores, ids = np.take_along_axis(together, best, 1), np.take_along_axis(numbers, best, 1)
    return [[int(number) for number in row] for row in ids]


def search(folder: Path, expected: list[list[int]], nprobes: int, refine: int) -> Searched:
    options = LanceOptions(nprobes=nprobes, refine=refine)
    shard = LanceStore(options).open(folder, SPEC)
    asked = drawn(-1 % 2**31, len(expected))
    found, times = 0, []
    for vector, near in zip(asked, expected, strict=True):
        began = time.perf_counter()
        hits = shard.search(Query(K, vector), Where())
        times.append((time.perf_counter() - began) * 1000)
        found += len({hit.record.id for hit in hits} & set(near))
    return Searched(found / (K * len(expected)), times, _memory_mb())


def _memory_mb() -> float:
    """The most that this process ever held (RSS)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
