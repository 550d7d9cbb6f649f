"""Shards as Lance datasets, on a path or an object store: for corpora beyond memory, and several readers.

Every write is a commit with files of its own; `optimize` merges them and takes old versions away. Every
read is of the latest version, which may be another process's. Lance lets go of the interpreter while it
works, so it needs no worker processes; it must not be forked.
"""

import contextlib
import math
import operator
import os
import pathlib
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

import lance
import numpy as np
import orjson
import pyarrow as pa

from schemas.vectors import Distance, PointId
from services import files
from vectord.backends import lance_rows as rows
from vectord.backends import wording
from vectord.backends.bm25 import model
from vectord.backends.engines import LanceOptions
from vectord.backends.ids import decode_cursor, encode_cursor
from vectord.backends.store import (
    Page,
    Query,
    Record,
    Scored,
    ShardInfo,
    ShardSpec,
    ShardTaken,
    StoreError,
    Where,
    failure,
)
from vectord.backends.terms import terms_of

LOCATOR: Final = "lance.json"
PRIVATE: Final = "data.lance"
METRIC: Final[dict[Distance, str]] = {"cosine": "cosine", "dot": "dot", "euclid": "l2"}
KEYS_PER_STATEMENT: Final = 500
BACKOFF_S: Final = 0.02
COMPACT_ROWS: Final = 262_144
PARTITION_ROWS: Final = 4096
PARTITIONS_MAX: Final = 4096
"""Training takes time with the square of these, and memory with them."""
UNMERGED_MAX: Final = 256
"""Writes that a dataset may have behind it before one of them merges, where `optimize` is not called."""

KEYS: Final = "key_idx"
FTS: Final = "words_idx"
VECTORS: Final = "vector_idx"
TRAINED: Final = "stillhouse.partitions"
CONFLICT: Final = ("conflict", "concurrent", "preempted")

Value = TypeVar("Value")


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    # A ValueError is what Lance says of its own statements and files.
    except (OSError, RuntimeError, ValueError, pa.ArrowException) as error:
        raise failure(doing, error) from error


class LanceStore:
    def __init__(self, options: LanceOptions) -> None:
        self._options = options
        self._session = lance.Session(  # type: ignore[attr-defined] # is exported by name, not by __all__
            index_cache_size_bytes=options.cache_bytes_max // 2,
            metadata_cache_size_bytes=options.cache_bytes_max // 2,
        )

    def create(self, folder: pathlib.Path, spec: ShardSpec) -> None:
        with _translated("cannot make the dataset"):
            folder.mkdir()
            if self._options.url:
                uri = f"{self._options.url.rstrip('/')}/{spec.name}.lance"
                self._locate(folder, uri=uri, owner=self._write_or_join(uri, folder, spec))
            else:
                self._write_empty(str(folder / PRIVATE), spec)
                self._locate(folder, uri=None, owner=True)

    def _write_or_join(self, uri: str, folder: pathlib.Path, spec: ShardSpec) -> bool:
        """Make a dataset, or find that another vectord made the same. True for one of our own.

        A move always wants one of its own: what it copies must not fall among others' points.
        """
        try:
            self._write_empty(uri, spec)
        except OSError as error:
            if "already exists" not in str(error):
                raise
            if folder.name != "shard" or self._stamp(uri) != spec.stamp():
                raise ShardTaken(f"{uri} exists already, and is not this collection's") from error
            return False
        return True

    def open(self, folder: pathlib.Path, spec: ShardSpec) -> "LanceShard":
        with _translated("cannot open the dataset"):
            uri = self._located(folder)["uri"]
            dataset = lance.dataset(uri or str(folder / PRIVATE), session=self._session)
            shard = LanceShard(dataset, spec, self._options, shared=uri is not None)
            if dataset.schema.metadata.get(rows.STAMP, b"").decode() != spec.stamp():
                raise StoreError(f"{dataset.uri} is another collection's")
            return shard

    def drop(self, folder: pathlib.Path) -> None:
        with _translated("cannot remove the dataset"):
            located = self._located(folder)
            if located["uri"] is None or not located["owner"]:
                return
            if "://" not in located["uri"]:
                shutil.rmtree(located["uri"], ignore_errors=True)
            else:
                lance.LanceDataset.drop(located["uri"])

    def durable(self) -> bool:
        """Files are synced; an object store that acknowledges has it safe."""
        return True

    def close(self) -> None:
        """Lance holds nothing that must be closed."""

    def _write_empty(self, uri: str, spec: ShardSpec) -> None:
        empty = rows.schema(spec).empty_table()
        dataset = lance.write_dataset(empty, uri, enable_v2_manifest_paths=True, session=self._session)
        for column, kind in (("key", "BTREE"), ("role_key", "BITMAP"), ("terms", "LABEL_LIST")):
            dataset.create_scalar_index(column, kind)  # type: ignore[arg-type] # they are of its literals
        if spec.hybrid:
            dataset.create_scalar_index(
                "words",
                "INVERTED",
                name=FTS,
                base_tokenizer="whitespace",
                lower_case=False,
                stem=False,
                remove_stop_words=False,
                ascii_folding=False,
                with_position=False,
            )

    def _stamp(self, uri: str) -> str:
        stamp: bytes = lance.dataset(uri, session=self._session).schema.metadata.get(rows.STAMP, b"")
        return stamp.decode()

    def _locate(self, folder: pathlib.Path, *, uri: str | None, owner: bool) -> None:
        files.replace(folder / LOCATOR, orjson.dumps({"uri": uri, "owner": owner}))

    def _located(self, folder: pathlib.Path) -> dict[str, Any]:
        located: dict[str, Any] = orjson.loads((folder / LOCATOR).read_bytes())
        return located


class LanceShard:
    def __init__(self, dataset: Any, spec: ShardSpec, options: LanceOptions, *, shared: bool) -> None:
        self._dataset = dataset
        self._spec = spec
        self._options = options
        self._shared = shared
        self._writing = threading.Lock()
        self._bm25 = model()
        self._schema = rows.schema(spec)
        self._synced: set[str] = set()
        self._unmerged = 0

    # --- writing ---

    def upsert(self, records: Sequence[Record]) -> None:
        latest = {record.id: record for record in records}
        rows = self._rows(list(latest.values()))

        def write(dataset: Any) -> None:
            merge = dataset.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
            # Planned by the index of keys, a merge does not tell which keys it adds: with a second process
            # that writes or compacts, a point came twice. Without it, one of the two tries again.
            merge.use_index(not self._shared)
            merge.conflict_retries(self._options.retries_max).execute(rows)

        self._commit("cannot write points", write)
        self._unmerged += 1
        if self._unmerged >= UNMERGED_MAX:
            self._merge()

    def delete(self, ids: Sequence[PointId]) -> None:
        keys = [rows.key(item) for item in ids]
        for start in range(0, len(keys), KEYS_PER_STATEMENT):
            statement = f"key IN ({rows.quoted(keys[start : start + KEYS_PER_STATEMENT])})"
            self._commit("cannot delete points", operator.methodcaller("delete", statement))

    def flush(self) -> None:
        """Sync what was written since the last time. An object store has nothing to sync."""
        folder = self._folder()
        if folder is None:
            return
        with self._writing, _translated("cannot flush"):
            seen = set()
            for root, _, names in os.walk(folder):
                for name in names:
                    path = os.path.join(root, name)  # noqa: PTH118 - many thousands of them
                    seen.add(path)
                    if path not in self._synced:
                        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:  # noqa: PTH123 - as above
                            os.fsync(file.fileno())
                files.sync_folder(pathlib.Path(root))
            files.sync_folder(folder.parent)
            self._synced = seen

    def optimize(self) -> None:
        """Merge small files, bring the indexes up to date, take old versions away.

        Memory is bounded: so many rows are merged at a time, by one thread, in small batches. A conflict
        with another process is left for the next time.
        """
        self._merge()
        with _translated("cannot build the index"):
            self._build(self._latest())
        keep = timedelta(seconds=self._options.versions_keep_s)
        self._commit("cannot remove old versions", lambda dataset: dataset.cleanup_old_versions(keep))

    def close(self) -> None:
        """Lance holds nothing that must be closed."""

    def _merge(self) -> None:
        """Merge small files, and let the keys be found in one index: a write looks every key up."""
        self._unmerged = 0
        while self._commit("cannot compact", _compact):
            pass
        self._commit(
            "cannot index keys", lambda dataset: dataset.optimize.optimize_indices(index_names=[KEYS])
        )

    def _build(self, dataset: Any) -> None:
        rows = dataset.count_rows()
        if rows >= self._options.flat_rows_max:
            wanted = min(PARTITIONS_MAX, max(1, rows // PARTITION_ROWS))
            if wanted >= 2 * _trained(dataset):
                self._train(dataset, wanted)
        dataset.optimize.optimize_indices()
        with self._writing:
            self._dataset = self._latest()  # not `dataset`: somebody may have written after it

    def _train(self, dataset: Any, partitions: int) -> None:
        sizes: dict[str, int] = {}
        if self._options.index == "IVF_PQ":
            sizes["num_sub_vectors"] = sub_vectors(self._spec.dimension)
        dataset.create_index(
            "vector",
            self._options.index,
            name=VECTORS,
            metric=METRIC[self._spec.distance],
            replace=True,
            num_partitions=partitions,
            **sizes,
        )
        dataset.update_config({TRAINED: str(partitions)})

    def _commit(self, doing: str, write: Callable[[Any], Value]) -> Value:
        """Write to the latest version; again where somebody else was first."""
        for attempt in range(self._options.retries_max + 1):
            try:
                with self._writing, _translated(doing):
                    dataset = self._latest()
                    value = write(dataset)
                    self._dataset = dataset
                    return value
            except StoreError as error:
                in_conflict = any(word in str(error).lower() for word in CONFLICT)
                if not in_conflict or attempt == self._options.retries_max:
                    raise
                time.sleep(BACKOFF_S * 2 ** min(attempt, 5) * random.random())  # noqa: S311 - no secret
        raise AssertionError("the last attempt returns or raises")

    def _latest(self) -> Any:
        """A handle of one's own on the latest version."""
        return self._dataset.checkout_version(self._dataset.latest_version)

    def _rows(self, records: Sequence[Record]) -> pa.Table:
        vectors = np.asarray([record.vector for record in records], np.float32)
        if self._spec.distance == "cosine":
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        flat = pa.array(vectors.reshape(-1), pa.float32())
        columns = [
            [rows.key(record.id) for record in records],
            [orjson.dumps(record.id).decode() for record in records],
            pa.FixedSizeListArray.from_arrays(flat, self._spec.dimension),
            [record.text for record in records],
            [record.role for record in records],
            [record.role_key for record in records],
            [orjson.dumps(record.payload).decode() for record in records],
        ]
        terms, words = zip(*(self._searchable(record) for record in records), strict=True)
        return pa.table([*columns, terms, words], schema=self._schema)

    def _searchable(self, record: Record) -> tuple[list[int], str | None]:
        terms = terms_of(record.payload)
        if not self._spec.hybrid or record.text is None:
            return terms, None
        document = self._bm25.embed_document(record.text)
        return [*terms, *map(wording.term, document.indices)], wording.spelled(document)

    def _folder(self) -> pathlib.Path | None:
        uri = str(self._dataset.uri)
        if "://" in uri and not uri.startswith("file://"):
            return None
        return pathlib.Path(uri.removeprefix("file://"))

    # --- reading ---

    def get(self, ids: Sequence[PointId], *, with_vector: bool) -> list[Record]:
        wanted = list(dict.fromkeys(ids))
        found = self._at([rows.key(item) for item in wanted], with_vector=with_vector)
        by_id = {record.id: record for record in found}
        return [by_id[item] for item in wanted if item in by_id]

    def scroll(self, where: Where, *, limit: int, cursor: str | None, with_vector: bool) -> Page:
        sql = rows.condition(where)
        if cursor is not None:
            sql = rows.both(f"key >= '{rows.key_of(decode_cursor(cursor))}'", sql)
        with _translated("cannot scroll"):
            scan = self._current().scanner(columns=["key"], filter=sql, order_by=["key"], limit=limit + 1)
            keys = scan.to_table()["key"].to_pylist()
        records = {rows.key(item.id): item for item in self._at(keys[:limit], with_vector=with_vector)}
        after = encode_cursor(rows.stored_of(keys[limit])) if len(keys) > limit else None
        return Page([records[key] for key in keys[:limit] if key in records], after)

    def count(self, where: Where) -> int:
        with _translated("cannot count"):
            return int(self._current().count_rows(rows.condition(where)))

    def search(self, query: Query, where: Where) -> list[Scored]:
        with _translated("cannot search"):
            if query.text is not None:
                return self._by_words(query.text, query, where)
            return self._by_vector(query, where)

    def info(self) -> ShardInfo:
        with _translated("cannot read the dataset's state"):
            dataset = self._current()
            return ShardInfo(points=dataset.count_rows(), indexed=_indexed(dataset))

    def _by_vector(self, query: Query, where: Where) -> list[Scored]:
        dataset, sql = self._current(), rows.condition(where)
        # Few rows: comparing each is as fast, and finds all. An index looks where no filtered row may be.
        flat = query.exact or dataset.count_rows(sql) <= self._options.flat_rows_max
        nearest: dict[str, Any] = {
            "column": "vector",
            "q": np.asarray(query.vector, np.float32),
            "k": query.limit,
            "metric": METRIC[self._spec.distance],
            "use_index": not flat,
        }
        if not flat:
            nearest |= {
                "minimum_nprobes": query.ef or self._options.nprobes,
                "refine_factor": self._options.refine,
            }
        table = dataset.scanner(
            columns=[*rows.columns(with_vector=query.with_vector), "_distance"],
            nearest=nearest,
            filter=sql,
            prefilter=True,
            disable_scoring_autoprojection=True,
        ).to_table()
        scores = [_score(self._spec.distance, distance) for distance in table["_distance"].to_pylist()]
        hits = [Scored(record, score) for record, score in zip(rows.records_of(table), scores, strict=True)]
        return sorted(hits, key=lambda hit: -hit.score)

    def _by_words(self, text: str, query: Query, where: Where) -> list[Scored]:
        """By BM25, with the weights of words among what the scope lets through.

        The index of words proposes by its own weights, which are those of all texts; the proposals are
        weighed again.
        """
        dataset = self._current()
        asked = list(dict.fromkeys(self._bm25.embed_query(text).indices))
        if not asked:
            return []
        scope, sql = rows.condition(Where(scope=where.scope)), rows.condition(where)
        texts = dataset.count_rows(rows.both("words IS NOT NULL", scope))
        idf = {
            word: wording.idf(texts, dataset.count_rows(rows.both(rows.any_of([wording.term(word)]), scope)))
            for word in asked
        }
        proposed = rows.both(rows.any_of([wording.term(word) for word in asked]), sql)
        columns = rows.columns(with_vector=query.with_vector)
        if dataset.count_rows(proposed) <= wording.WEIGHED_MAX:
            table = dataset.scanner(columns=columns, filter=proposed).to_table()
        else:
            table = dataset.scanner(
                columns=columns,
                full_text_query={"columns": ["words"], "query": " ".join(map(str, asked))},
                filter=sql,
                prefilter=True,
                limit=max(wording.PROPOSALS_MIN, wording.PROPOSALS_SHARE * query.limit),
                disable_scoring_autoprojection=True,
            ).to_table()
        hits = [
            Scored(record, wording.score(idf, self._bm25.embed_document(str(record.text))))
            for record in rows.records_of(table)
        ]
        return sorted(hits, key=lambda hit: -hit.score)[: query.limit]

    def _at(self, keys: Sequence[str], *, with_vector: bool) -> list[Record]:
        found: list[Record] = []
        dataset = self._current()
        with _translated("cannot read points"):
            for start in range(0, len(keys), KEYS_PER_STATEMENT):
                sql = f"key IN ({rows.quoted(keys[start : start + KEYS_PER_STATEMENT])})"
                columns = rows.columns(with_vector=with_vector)
                found += rows.records_of(dataset.scanner(columns=columns, filter=sql).to_table())
        return found

    def _current(self) -> Any:
        """The latest version: of our own writes, and where the dataset is shared, of everybody's."""
        dataset = self._dataset
        if self._shared:
            with _translated("cannot read the dataset's version"):
                newest = dataset.latest_version
                if newest != dataset.version:
                    self._dataset = dataset = dataset.checkout_version(newest)
        return dataset


# --- plain steps ------------------------------------------------------------------------------


def sub_vectors(dimension: int) -> int:
    """Into how many codes a vector is split: one for about four numbers, and a divisor."""
    return next(count for count in range(max(1, dimension // 4), 0, -1) if dimension % count == 0)


def _compact(dataset: Any) -> int:
    metrics = dataset.optimize.compact_files(num_threads=1, batch_size=1024, max_source_rows=COMPACT_ROWS)
    # A merge that leaves as many files as it found has nothing left to gain.
    return max(0, int(metrics.fragments_removed - metrics.fragments_added))


def _trained(dataset: Any) -> int:
    """Partitions that the index of vectors was made with; 0 while there is none."""
    return int(dataset.config().get(TRAINED, "0")) if _index(dataset) is not None else 0


def _indexed(dataset: Any) -> int:
    index = _index(dataset)
    return int(index.num_rows_indexed) if index is not None else 0


def _index(dataset: Any) -> Any:
    return next((index for index in dataset.describe_indices() if index.name == VECTORS), None)


def _score(distance: Distance, found: float) -> float:
    return -math.sqrt(max(0.0, found)) if distance == "euclid" else 1.0 - found
