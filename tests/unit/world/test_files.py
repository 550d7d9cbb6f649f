"""The folder: same seed, same bytes; complete or not there."""

import hashlib
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from schemas.artifacts import JobOrder, Worker
from stillhouse.world import SCHEMA, Spec, generate, write
from stillhouse.world.cli import app

ROOT = Path(__file__).parents[3]
FILES = {"roster.parquet", "orders.jsonl", "playbooks.jsonl", "messages.jsonl", "roles.json"}
SMALL = Spec(seed=3, workers=300, orders=20, notes_per_role=2, messages=70)


def _run(folder: Path, **environment: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "stillhouse.world", str(folder), "--seed", "3", "--workers", "300"]
    command += ["--orders", "20", "--notes-per-role", "2", "--messages", "70", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, check=True, text=True
    )
    files: dict[str, Any] = json.loads(done.stdout)["files"]
    return files


def test_same_seed_same_bytes_in_other_processes_zones_and_locales(tmp_path: Path) -> None:
    here = write(tmp_path / "here", SMALL)
    there = _run(tmp_path / "there", PYTHONHASHSEED="1", TZ="Asia/Tokyo", LC_ALL="C")
    again = _run(tmp_path / "again", PYTHONHASHSEED="4242", TZ="America/Los_Angeles", LC_ALL="C.UTF-8")
    assert there == again
    assert {name: entry["sha256"] for name, entry in there.items()} == here.sha256
    assert (tmp_path / "here/world.json").read_bytes() == (tmp_path / "again/world.json").read_bytes()


def test_another_seed_or_day_changes_what_depends_on_it(tmp_path: Path) -> None:
    first = write(tmp_path / "a", SMALL).sha256
    second = write(tmp_path / "b", Spec(seed=4, workers=300, orders=20, notes_per_role=2, messages=70)).sha256
    assert {name for name in FILES if first[name] != second[name]} == FILES - {"roles.json"}
    later = Spec(seed=3, workers=300, orders=20, as_of=date(2026, 10, 27), notes_per_role=2, messages=70)
    third = write(tmp_path / "c", later).sha256
    assert first["roster.parquet"] != third["roster.parquet"]
    assert first["playbooks.jsonl"] == third["playbooks.jsonl"]


def test_the_manifest_tells_counts_and_hashes_of_every_file(tmp_path: Path) -> None:
    seen: list[int] = []
    made = write(tmp_path / "deep/world", SMALL, progress=seen.append)
    folder = tmp_path / "deep/world"
    assert {path.name for path in folder.iterdir()} == FILES | {"world.json"}
    manifest = json.loads((folder / "world.json").read_bytes())
    assert (manifest["seed"], manifest["as_of"]) == (3, "2026-10-26")
    for name, entry in manifest["files"].items():
        assert (
            entry["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest() == made.sha256[name]
        )
    for name in ("orders.jsonl", "messages.jsonl", "playbooks.jsonl"):
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        assert len(lines) == manifest["files"][name]["records"]
        assert all(line.endswith(b"\n") for line in lines)
    assert pq.read_metadata(folder / "roster.parquet").num_rows == 300
    assert seen == [300]


def test_writing_again_replaces_the_world(tmp_path: Path) -> None:
    write(tmp_path, Spec(seed=9, workers=60, orders=2, notes_per_role=0, messages=0))
    second = write(tmp_path, SMALL)
    for name, sha256 in second.sha256.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == sha256
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"world.json"}


def test_a_failure_half_way_leaves_the_earlier_world_alone(tmp_path: Path) -> None:
    write(tmp_path, SMALL)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(_rows: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write(tmp_path, Spec(seed=5, workers=60), progress=fail)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_roster_has_the_contract_columns_and_types(tmp_path: Path) -> None:
    write(tmp_path, SMALL)
    read = pq.read_schema(tmp_path / "roster.parquet")
    assert {field.name: str(field.type).replace("element:", "item:") for field in read} == {
        "worker_id": "string",
        "first_name": "string",
        "last_name": "string",
        "status": "string",
        "roles": "list<item: string>",
        "city": "string",
        "state": "string",
        "zip": "string",
        "phone": "string",
        "email": "string",
        "date_of_birth": "date32[day]",
        "certs": "list<item: struct<code: string, expires: date32[day]>>",
        "blocked_clients": "list<item: string>",
        "assignments": "list<item: struct<order_id: string, start: timestamp[us, tz=UTC],"
        " end: timestamp[us, tz=UTC]>>",
    }
    assert read.names == SCHEMA.names
    row = pq.read_table(tmp_path / "roster.parquet").slice(7, 1).to_pylist()[0]
    row["date_of_birth"] = row["date_of_birth"].isoformat()
    row["certs"] = [cert | {"expires": cert["expires"].isoformat()} for cert in row["certs"]]
    assert Worker.model_validate(row).worker_id == "W-100008"


def test_orders_are_read_back_as_job_orders(tmp_path: Path) -> None:
    write(tmp_path, SMALL)
    lines = (tmp_path / "orders.jsonl").read_bytes().splitlines()
    assert [JobOrder.model_validate_json(line) for line in lines] == list(generate(SMALL).orders)
    assert not any(b"null" in line for line in lines)


def test_a_large_roster_is_written_in_row_groups_of_bounded_size(tmp_path: Path) -> None:
    write(tmp_path, Spec(workers=50_001, orders=1, notes_per_role=0, messages=0))
    metadata = pq.read_metadata(tmp_path / "roster.parquet")
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [50_000, 1]
    ids = pq.read_table(tmp_path / "roster.parquet", columns=["worker_id"])["worker_id"].to_pylist()
    assert ids == sorted(set(ids))
    assert len(ids) == 50_001


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": 49}, "workers is 49; it may be 50 to 899999"),
        ({"seed": -1}, "seed is -1"),
        ({"orders": 0}, "orders is 0; it may be 1"),
        ({"messages": -1}, "messages is -1"),
    ],
)
def test_numbers_out_of_bounds_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spec(**change)  # type: ignore[arg-type]  # only the numbers are changed here


def test_the_command_says_what_it_wrote_and_refuses_with_status_2(tmp_path: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(app, [str(tmp_path), "--workers", "60", "--orders", "1", "--as-of", "2027-03-01"])
    assert done.exit_code == 0, done.output
    assert "60 records" in done.output.replace("\n", "")
    assert json.loads((tmp_path / "world.json").read_bytes())["as_of"] == "2027-03-01"
    assert runner.invoke(app, [str(tmp_path), "--workers", "3"]).exit_code == 2
    help_text = runner.invoke(app, ["--help"]).output
    assert "Examples" in help_text
    assert "python -m stillhouse.world" in help_text
