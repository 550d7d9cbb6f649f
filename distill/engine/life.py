"""A run's life after it was kept: the evidence it became, the rows that hold it, the replays of it."""

import mmap
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson

from distill.engine import search
from distill.engine.library import Library
from distill.engine.places import DATASETS, REPLAYS, TASKS
from distill.engine.search import Wanted
from schemas.distill import EpisodeRun, ExportedRow, ReplayedTask, RunLife
from schemas.evidence import Evidence, Scored
from schemas.runs import ModelRef

PROVENANCE: Final = "*/*.provenance.jsonl"
SHOWN_MAX: Final = 100
"""Of the runs of an episode, of rows and of replays, no more than this many are told."""

Json = dict[str, Any]


def life_of(
    library: Library, data: Path, evidence_id: str, episode_id: str | None, *, bytes_max: int
) -> RunLife:
    """What became of a run. Of datasets and of replays `bytes_max` are searched, the newest first. Blocks."""
    rows = _Files(data / DATASETS, PROVENANCE, bytes_max)
    replays = _Files(data / REPLAYS, f"*/{TASKS}", bytes_max)
    evidence, scored = library.lines_of(evidence_id)
    return RunLife(
        evidence=Evidence.model_validate_json(evidence) if evidence is not None else None,
        scored=Scored.model_validate_json(scored) if scored is not None else None,
        episode=_episode(library, episode_id) if episode_id is not None else [],
        rows=[_row(path, one, evidence_id) for path, one in islice(rows.about(evidence_id), SHOWN_MAX)],
        replays=[_replay(one) for _, one in islice(replays.about(evidence_id), SHOWN_MAX)],
        complete=rows.complete and replays.complete,
    )


# --- the episode --------------------------------------------------------------------------------


def _episode(library: Library, episode_id: str) -> list[EpisodeRun]:
    """The runs of an episode that are evidence already, in the order of time."""
    found = []
    for one in sorted(search.belonging(library, Wanted(episode_id=episode_id)))[:SHOWN_MAX]:
        evidence, scored = library.lines_of(one.hex())
        if evidence is not None:
            found.append(_episode_run(orjson.loads(evidence), orjson.loads(scored) if scored else None))
    return sorted(found, key=lambda one: (one.ts is None, one.ts, one.run_id))


def _episode_run(evidence: Json, scored: Json | None) -> EpisodeRun:
    verdict = evidence["verdict"]
    return EpisodeRun(
        run_id=evidence["source"]["key"],
        evidence_id=evidence["evidence_id"],
        ts=evidence["ts"],
        model=ModelRef.model_validate(evidence["model"]),
        verdict=verdict["verdict"] if verdict is not None else None,
        category=scored["category"] if scored is not None else None,
        repair_of=evidence["repair_of"],
    )


# --- files that name evidence -------------------------------------------------------------------


class _Files:
    """Files of JSON lines, searched for those that name a piece of evidence."""

    def __init__(self, folder: Path, pattern: str, bytes_max: int) -> None:
        found = [(path.stat(), path) for path in folder.glob(pattern)]
        self._files = sorted(found, key=lambda one: (-one[0].st_mtime_ns, str(one[1])))
        self._bytes_max = bytes_max
        self.complete = sum(stat.st_size for stat, _ in found) <= bytes_max

    def about(self, evidence_id: str) -> Iterator[tuple[Path, Json]]:
        needle = f'"evidence_id":"{evidence_id}"'.encode()
        left = self._bytes_max
        for stat, path in self._files:
            left -= stat.st_size
            if left < 0:
                return
            if stat.st_size:
                yield from ((path, orjson.loads(line)) for line in _lines_with(path, needle))


def _lines_with(path: Path, needle: bytes) -> Iterator[bytes]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(needle)
        while at >= 0:
            start, end = content.rfind(b"\n", 0, at) + 1, content.find(b"\n", at)
            yield content[start : end if end >= 0 else len(content)]
            at = content.find(needle, end) if end >= 0 else -1


def _row(path: Path, provenance: Json, evidence_id: str) -> ExportedRow:
    return ExportedRow(
        dataset_id=path.parent.name,
        file=path.name.replace(".provenance", ""),
        line=provenance["line"],
        split=provenance.get("split"),
        part="row" if provenance["evidence_id"] == evidence_id else "rejected",
    )


def _replay(record: Json) -> ReplayedTask:
    return ReplayedTask(
        replay_id=record["replay_id"],
        arm=record["arm"],
        repeat=record["repeat"],
        mode=record["mode"],
        outcome=record["outcome"],
        run_ids=[attempt["run_id"] for attempt in record["attempts"]],
    )
