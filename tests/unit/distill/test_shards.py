"""Evidence in shards: the joins between them, and that neither cuts, processes nor interruptions show."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.engine import link, lookup, search
from distill.engine.inputs import Input
from distill.engine.library import Library
from distill.engine.materialize import Limits, Materialized, materialize
from distill.engine.pool import Pool
from distill.engine.progress import Progress, Stopped
from distill.engine.receipts import Receipts
from distill.engine.rules import SHIPPED
from distill.engine.score import score_evidence
from distill.engine.search import Wanted
from schemas.canonical import canonical_bytes
from tests.unit.distill.builders import Json, episode, run, stored, verdict, verdict_record

ROOT = Path(__file__).parents[3]
KINDS = ("evidence", "quarantine", "scored")


def write_segment(data: Path, records: Iterable[Json], writer: str = "", number: int = 1) -> None:
    name = f"runs-{writer}-{number:06d}.jsonl" if writer else f"runs-{number:06d}.jsonl"
    (data / "log").mkdir(parents=True, exist_ok=True)
    (data / "log" / name).write_bytes(b"".join(canonical_bytes(record) + b"\n" for record in records))


def inputs_of(data: Path) -> list[Input]:
    return [
        Input("stillhouse", path.name, path, path.stat().st_size)
        for path in sorted((data / "log").glob("runs-*.jsonl"))
    ]


def stages(data: Path, part_bytes: int = 4096, progress: Progress | None = None) -> Materialized:
    """Materialize and score, in this process."""
    Receipts(data).key()
    limits = Limits(part_bytes=part_bytes, line_bytes_max=1 << 20, depth_max=64)
    with Pool(1) as pool:
        made = materialize(inputs_of(data), data, limits, pool, progress or Progress())
        score_evidence(data, SHIPPED, pool, progress or Progress())
    return made


def products(data: Path) -> dict[str, bytes]:
    folder = data / "distill"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(
            [*(path for kind in KINDS for path in (folder / kind).iterdir()), *folder.glob("*.json")]
        )
    }


# --- the joins, against a plain reading of the whole log ----------------------------------------

NAMES = st.sampled_from(["accepted", "rejected", "needs_human_review"])
RUN_IDS = st.sampled_from([f"r{number}" for number in range(6)])
EPISODES = st.none() | st.sampled_from(["e1", "e2"])


@st.composite
def runs(draw: st.DrawFn) -> Json:
    run_id, name = draw(RUN_IDS), draw(st.none() | NAMES)
    return run(
        run_id,
        answer=draw(st.sampled_from(["x", "x", "y"])),
        episode_id=draw(EPISODES),
        ts=f"2026-11-02T10:00:0{draw(st.integers(0, 3))}Z",
        task=draw(st.none() | st.sampled_from([{"kind": "fill", "key": "a"}, {"kind": "sms", "key": None}])),
        verdict=verdict(name) if name else None,
        ext=draw(st.sampled_from([{}, {}, {"repair_of_run_id": draw(RUN_IDS)}])),
    )


@st.composite
def notes(draw: st.DrawFn) -> Json:
    second = draw(st.integers(0, 4))
    if draw(st.booleans()):
        return verdict_record(draw(RUN_IDS), draw(NAMES), ts=f"2026-11-02T11:00:0{second}Z")
    about = draw(
        st.sampled_from([{"run_id": draw(RUN_IDS)}, {"episode_id": draw(st.sampled_from(["e1", "e3"]))}])
    )
    return {
        "schema": "stillhouse.feedback",
        "schema_version": "1.0",
        "feedback_id": f"f{draw(st.integers(0, 3))}",
        "ts": f"2026-11-02T12:00:0{second}Z",
        "kind": "boolean",
        "value": draw(st.booleans()),
        "by": "ann",
        **about,
    }


def plainly(records: list[Json]) -> dict[str, tuple[Any, ...]]:
    """What is known of each run, found by looking at everything: verdict, feedback, repairs and copies."""
    lines = [canonical_bytes(record) for record in records]
    first: dict[str, int] = {}
    copies: dict[str, int] = {}
    for place, record in enumerate(records):
        if record["schema"] == "stillhouse.run":
            winner = first.setdefault(record["run_id"], place)
            copies[record["run_id"]] = copies.get(record["run_id"], -1) + (lines[winner] == lines[place])
    said = [records[lines.index(line)] for line in dict.fromkeys(lines)]
    verdicts: dict[str, Any] = {}
    for run_id, place in first.items():
        own = records[place]["verdict"]
        later = [
            (one["ts"], canonical_digest(one), one["verdict"])
            for one in said
            if one["schema"] == "stillhouse.verdict" and one["run_id"] == run_id
        ]
        verdicts[run_id] = max(later, key=lambda one: one[:2])[2] if later else own
    repairs = repaired(records, first, verdicts)
    return {
        run_id: (
            verdicts[run_id]["verdict"] if verdicts[run_id] else None,
            feedback_on(records[place], said),
            repairs.get(run_id),
            copies[run_id],
        )
        for run_id, place in first.items()
    }


def canonical_digest(record: Json) -> bytes:
    return hashlib.sha256(canonical_bytes(record) + b"\n").digest()


def feedback_on(one: Json, said: list[Json]) -> list[tuple[str, str, bool]]:
    found = [
        (note["feedback_id"], note["ts"], note["value"])
        for note in said
        if note["schema"] == "stillhouse.feedback"
        and (
            note.get("run_id") == one["run_id"]
            or (one["episode_id"] is not None and note.get("episode_id") == one["episode_id"])
        )
    ]
    return sorted(found)


def repaired(records: list[Json], first: dict[str, int], verdicts: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    order = sorted((records[place] for place in first.values()), key=lambda one: (one["ts"], one["run_id"]))
    for at, one in enumerate(order):
        if one["episode_id"] is None:
            continue
        before = [
            other
            for other in order[:at]
            if (other["episode_id"], other["task"]) == (one["episode_id"], one["task"])
        ]
        named = one["ext"].get("repair_of_run_id")
        if named is not None:
            found |= {one["run_id"]: named} if named in {other["run_id"] for other in before} else {}
        elif one["task"] is not None and before:
            judged = verdicts[before[-1]["run_id"]]
            if judged is not None and judged["verdict"] != "accepted":
                found[one["run_id"]] = before[-1]["run_id"]
    return found


@settings(max_examples=80, deadline=None)
@given(
    st.lists(runs() | notes(), min_size=1, max_size=24), st.sampled_from([700, 2000, 1 << 20]), st.booleans()
)
def test_the_joins_are_those_of_a_plain_reading(
    tmp_path_factory: pytest.TempPathFactory, records: list[Json], part_bytes: int, narrow: bool
) -> None:
    data = tmp_path_factory.mktemp("joins")
    first = run("first", answer="z", episode_id=None, task=None, verdict=None, ext={})
    write_segment(data, [first, *records])
    before, link.RANGE_ENTRIES = link.RANGE_ENTRIES, 1 if narrow else link.RANGE_ENTRIES  # many ranges
    try:
        made = stages(data, part_bytes)
    finally:
        link.RANGE_ENTRIES = before
    expected = plainly([first, *records])
    evidence = stored(data, "evidence")
    keys = {one["evidence_id"]: one["source"]["key"] for one in evidence}
    assert {
        one["source"]["key"]: (
            one["verdict"]["verdict"] if one["verdict"] else None,
            sorted((said["feedback_id"], said["ts"], said["value"]) for said in one["feedback"]),
            keys[one["repair_of"]] if one["repair_of"] else None,
            one["duplicates"],
        )
        for one in evidence
    } == expected
    assert made.counts["in"] == len(records) + 1
    by_id = {one["evidence_id"]: one for one in evidence}
    for one in evidence:
        if one["repaired_by"] is not None:
            assert by_id[one["repaired_by"]]["repair_of"] == one["evidence_id"]
    drafts = {one["repair_of"] for one in evidence if one["repair_of"]}
    assert {one["evidence_id"] for one in evidence if one["repaired_by"]} == drafts


# --- the same bytes -----------------------------------------------------------------------------


def many(start: int, count: int) -> list[Json]:
    records: list[Json] = []
    for number in range(start, start + count):
        records += episode(f"o{number}")
        records += [
            run(f"plain-{number}", verdict=verdict()),
            verdict_record(f"plain-{number // 2}", "rejected"),
        ]
    return records


def test_an_interrupted_run_goes_on_where_it_was_and_leaves_the_same(tmp_path: Path) -> None:
    class Stopping(Progress):
        left = 0

        def reach(self, done: int, total: int, *, start: float = 0.0, end: float = 1.0) -> None:
            self.left -= 1
            if self.left < 0:
                self.stop()
            super().reach(done, total, start=start, end=end)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for data in (whole, cut):
        write_segment(data, many(0, 12))
    stages(whole)
    stops = 0
    while True:
        progress = Stopping()
        progress.left = 3 + stops
        try:
            stages(cut, progress=progress)
            break
        except Stopped:
            stops += 1
            for leftover in ("evidence", "index"):  # as a process that was killed leaves them
                (cut / "distill" / leftover).mkdir(parents=True, exist_ok=True)
                (cut / "distill" / leftover / ".half.0123").write_bytes(b"half")
    assert stops > 3
    assert products(cut) == products(whole)


def test_more_input_changes_the_shards_that_it_concerns_and_no_others(tmp_path: Path) -> None:
    grown, fresh = tmp_path / "grown", tmp_path / "fresh"
    write_segment(grown, many(0, 12))
    first = {shard.name: shard.evidence.name for shard in stages(grown).manifest.shards}
    stamps = {path.name: path.stat().st_mtime_ns for path in (grown / "distill" / "evidence").iterdir()}
    late = verdict_record("plain-3", "accepted", ts="2026-11-03T00:00:00Z")
    for data in (grown, fresh):
        write_segment(data, [*many(0, 12), *many(12, 2), late])
    then = {shard.name: shard.evidence.name for shard in stages(grown).manifest.shards}
    kept = {name for name in first if then[name] == first[name]}
    assert len(first) >= 6
    assert len(set(first) - kept) <= 3  # the last one, and those of two runs that were judged later
    for name in kept:
        path = grown / "distill" / "evidence" / Path(then[name]).name
        assert path.stat().st_mtime_ns == stamps[path.name]
    stages(fresh)
    assert products(grown) == products(fresh)


def test_a_log_that_was_changed_is_read_again(tmp_path: Path) -> None:
    write_segment(tmp_path, many(0, 3))
    stages(tmp_path)
    write_segment(tmp_path, many(1, 3))
    stages(tmp_path)
    assert {one["episode_id"] for one in stored(tmp_path, "evidence")} == {None, "o1", "o2", "o3"}


STAGES = """
import sys
from pathlib import Path
from tests.unit.distill.test_shards import inputs_of
from distill.engine.materialize import Limits, materialize
from distill.engine.pool import Pool
from distill.engine.progress import Progress
from distill.engine.receipts import Receipts
from distill.engine.rules import SHIPPED
from distill.engine.score import score_evidence

if __name__ == "__main__":
    data = Path(sys.argv[1])
    Receipts(data).key()
    with Pool(int(sys.argv[2])) as pool:
        inputs = inputs_of(data)
        materialize(inputs[:: int(sys.argv[3])], data, Limits(4096, 1 << 20, 64), pool, Progress())
        score_evidence(data, SHIPPED, pool, Progress())
"""


WAYS = [
    ("1", "1", {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "0"}),
    ("2", "-1", {"TZ": "Asia/Kolkata", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "1"}),
    ("4", "1", {"TZ": "America/Los_Angeles", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "random"}),
]


@pytest.mark.parametrize("ways", [WAYS[:2], pytest.param(WAYS, marks=pytest.mark.chaos)], ids=["two", "all"])
def test_processes_time_zone_locale_and_hash_seed_do_not_show(
    tmp_path: Path, ways: list[tuple[str, str, dict[str, str]]]
) -> None:
    script = tmp_path / "stages.py"
    script.write_text(STAGES)
    made = []
    for processes, order, env in ways:
        data = tmp_path / processes
        halves = [("b", many(6, 6)), ("", many(0, 6))]
        for writer, records in halves if processes == "2" else reversed(halves):
            write_segment(data, records, writer)
        subprocess.run(
            [sys.executable, str(script), str(data), processes, order],
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            cwd=tmp_path,
            check=True,
            timeout=100,
        )
        made.append(products(data))
    assert all(one == made[0] for one in made)
    assert len(made[0]) > 10


@pytest.mark.parametrize("victim", ["evidence", "scored", "index/*.evidence", "index/*.ids"])
def test_what_was_taken_away_or_edited_is_made_again(tmp_path: Path, victim: str) -> None:
    write_segment(tmp_path, many(0, 4))
    stages(tmp_path)
    before = products(tmp_path)
    pattern = victim if "*" in victim else f"{victim}/*.jsonl"
    first, second = sorted((tmp_path / "distill").glob(pattern))[:2]
    first.unlink()
    if victim == "index/*.evidence":
        second.write_bytes(second.read_bytes()[:-3] + b'x"}')
    stages(tmp_path)
    assert products(tmp_path) == before


# --- finding ------------------------------------------------------------------------------------


def test_everything_is_found_by_its_id(tmp_path: Path) -> None:
    write_segment(tmp_path, many(0, 12))
    before, lookup.RANGE_ENTRIES = lookup.RANGE_ENTRIES, 8  # many ranges
    try:
        stages(tmp_path)
    finally:
        lookup.RANGE_ENTRIES = before
    library = Library(tmp_path / "distill")
    items = [item for shard in library.shards() for item in shard.read()]
    assert len(items) == 36
    for item in items:
        found = library.item(item.id)
        assert found is not None
        assert (found.evidence_line, found.scored_line) == (item.evidence_line, item.scored_line)
        first = library.first(item)
        assert first is not None
        assert first.id == (item.evidence["repair_of"] or item.id)
    assert library.item("0" * 64) is None
    page = search.page(library, Wanted(), limit=100, after=None, scan_max=1000)
    assert [one.evidence.evidence_id for one in page.evidence] == sorted(item.id for item in items)


def test_lines_of_a_shard_are_sorted_and_hashed(tmp_path: Path) -> None:
    write_segment(tmp_path, many(0, 4))
    for shard in stages(tmp_path).manifest.shards:
        lines = (tmp_path / shard.evidence.name).read_bytes().splitlines(keepends=True)
        ids = [orjson.loads(line)["evidence_id"] for line in lines]
        assert ids == sorted(set(ids))
        assert len(lines) == shard.evidence.lines == shard.counts["out"]
