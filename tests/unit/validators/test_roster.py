"""The Parquet roster: the agreed types, what is refused, and following the file as it changes."""

import os
import tempfile
import threading
from datetime import UTC, date, datetime
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO
from zlib import crc32

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from validators.backends import BrokenRoster, FakeRoster, Helper, Index, Roster, RosterFile, watch
from validators.backends.compile import UnfitRoster, compile_roster
from validators.engine import Policy

CERT = pa.struct([("code", pa.string()), ("expires", pa.date32())])
ASSIGNMENT = pa.struct(
    [("order_id", pa.string()), ("start", pa.timestamp("us", "UTC")), ("end", pa.timestamp("us", "UTC"))]
)
START, END = datetime(2026, 11, 2, 6, tzinfo=UTC), datetime(2026, 11, 2, 14, tzinfo=UTC)


def columns() -> dict[str, Any]:
    return {
        "worker_id": ["W-3", "W-1", "W-é"],
        "first_name": ["Aisha", "Robert", "Zoë"],
        "last_name": ["Khan", "Young", "O'Neil"],
        "status": ["active", "inactive", "active"],
        "roles": pa.array([["Forklift Driver", "Forklift Operator"], ["Janitor"], []], pa.list_(pa.string())),
        "city": ["St. Louis", "Columbus", "Saint Louis"],
        "state": ["Missouri", "OH", "MO"],
        "zip": ["63101", "43004", "63101"],
        "phone": ["+16145550100", "", None],
        "email": ["a@example.com", "b@example.com", None],
        "date_of_birth": pa.array([date(1990, 5, 17), None, date(2001, 2, 28)]),
        "certs": pa.array(
            [[{"code": "OSHA-10", "expires": date(2027, 1, 1)}, {"code": "CPR", "expires": None}], [], None],
            pa.list_(CERT),
        ),
        "blocked_clients": pa.array([["C-1"], [], None], pa.list_(pa.string())),
        "assignments": pa.array(
            [[{"order_id": "O-1", "start": START, "end": END}], [], []], pa.list_(ASSIGNMENT)
        ),
    }


def parquet(data: dict[str, Any] | pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(data) if isinstance(data, dict) else data, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def index_of(data: dict[str, Any] | pa.Table) -> Index:
    with tempfile.TemporaryFile() as out:
        compile_roster(parquet(data), out)
        return Index(out, as_of="2026-11-22")


def roster_of(policy: Policy, data: dict[str, Any]) -> Roster:
    return index_of(data).keyed(policy)


def compile_here(path: Path, out: BinaryIO, _: bool) -> None:
    """As the helper does, without a process."""
    try:
        compile_roster(path.read_bytes(), out)
    except UnfitRoster as error:
        raise BrokenRoster(str(error)) from error


def test_a_row_reads_back(policy: Policy) -> None:
    roster = roster_of(policy, columns())
    facts = roster.find("W-3")
    assert facts is not None
    assert (facts.row, facts.name, facts.status, facts.phone) == (0, "Aisha Khan", "active", "+16145550100")
    assert list(facts.roles) == ["Forklift Driver", "Forklift Operator"]
    assert [(cert.code, cert.expires) for cert in facts.certs] == [
        ("OSHA-10", date(2027, 1, 1)),
        ("CPR", None),
    ]
    assert list(facts.assignments) == [("O-1", START, END)]
    assert facts.date_of_birth == date(1990, 5, 17)
    last = roster.find("W-é")
    assert last is not None
    assert (last.row, last.phone, list(last.certs), list(last.blocked_clients)) == (2, "", [], [])
    assert roster.find("W-2") is None
    assert roster.find("") is None
    assert roster.info.rows == 3


def test_candidates_are_active_and_come_once(policy: Policy) -> None:
    roster = roster_of(policy, columns())
    found = roster.candidates(policy.role("forklift operator"), policy.place("St Louis", "MO"))
    assert [facts.worker_id for facts in found] == ["W-3"]
    assert list(roster.candidates("janitor", policy.place("Columbus", "Ohio"))) == []  # inactive
    assert list(roster.candidates("astronaut", policy.place("Columbus", "Ohio"))) == []


def test_the_fake_answers_as_the_real_one(policy: Policy) -> None:
    real = roster_of(policy, columns())
    workers = [facts for name in ("W-3", "W-1", "W-é") if (facts := real.find(name)) is not None]
    fake: Roster = FakeRoster(workers, policy)
    for roster in (real, fake):
        assert roster.find("W-1") == workers[1]
        assert roster.find("w-1") is None
        place = policy.place("Saint Louis", "Missouri")
        assert [w.worker_id for w in roster.candidates("forklift operator", place)] == ["W-3"]


def test_iso_texts_serve_as_dates_and_times(policy: Policy) -> None:
    data = columns()
    data["date_of_birth"] = ["1990-05-17", None, "2001-02-28"]
    data["certs"] = [[{"code": "OSHA-10", "expires": "2027-01-01"}], [], []]
    times = {"order_id": "O-1", "start": "2026-11-02T01:00:00-05:00", "end": "2026-11-02T14:00:00Z"}
    data["assignments"] = [[times], [], []]
    facts = roster_of(policy, data).find("W-3")
    assert facts is not None
    assert facts.date_of_birth == date(1990, 5, 17)
    assert facts.certs[0].expires == date(2027, 1, 1)
    assert list(facts.assignments) == [("O-1", START, END)]


def test_other_spellings_of_the_types_serve(policy: Policy) -> None:
    data = columns()
    data["status"] = pa.array(data["status"]).dictionary_encode()
    data["worker_id"] = pa.array(data["worker_id"], pa.large_string())
    data["roles"] = data["roles"].cast(pa.large_list(pa.large_string()))
    facts = roster_of(policy, data).find("W-1")
    assert facts is not None
    assert (facts.status, list(facts.roles)) == ("inactive", ["Janitor"])


def test_a_worker_is_found_by_address(policy: Policy) -> None:
    data = columns() | {"email": ["a@example.com", "B@Example.com", "a@example.COM"]}
    real = roster_of(policy, data)
    workers = [facts for name in ("W-3", "W-1", "W-é") if (facts := real.find(name)) is not None]
    for roster in (real, FakeRoster(workers, policy)):
        assert roster.find_email("b@example.com") == workers[1]
        assert roster.find_email("A@example.com") == workers[0]  # the first of two
        assert roster.find_email("c@example.com") is None
        assert roster.find_email("") is None
        assert roster.find_email("\ud800") is None


def test_other_keys_make_another_roster_of_one_snapshot() -> None:
    class Plain:
        def role(self, text: str) -> str:
            return text

        def place(self, city: str, state: str) -> str:
            return f"{city}/{state}"

    class OneCity(Plain):
        def place(self, city: str, state: str) -> str:  # noqa: ARG002 - all places are one here
            return "anywhere"

    index = index_of(columns())
    plain, one = index.keyed(Plain()), index.keyed(OneCity())
    assert [facts.worker_id for facts in plain.candidates("Forklift Driver", "St. Louis/Missouri")] == ["W-3"]
    assert list(plain.candidates("Forklift Driver", "anywhere")) == []
    assert [facts.worker_id for facts in one.candidates("Forklift Operator", "anywhere")] == ["W-3"]
    assert list(one.candidates("Forklift Driver", "St. Louis/Missouri")) == []


def test_ids_with_one_checksum_are_told_apart(policy: Policy) -> None:
    assert crc32(b"plumless") == crc32(b"buckeroo")
    data = columns() | {"worker_id": ["plumless", "W-1", "buckeroo"]}
    roster = roster_of(policy, data)
    rows = [facts.row for name in ("plumless", "buckeroo") if (facts := roster.find(name)) is not None]
    assert rows == [0, 2]
    data["worker_id"] = ["plumless", "buckeroo", "plumless"]
    with pytest.raises(UnfitRoster, match="'plumless' twice"):
        roster_of(policy, data)


def test_a_file_may_name_its_own_date() -> None:
    table = pa.table(columns())
    assert index_of(table.replace_schema_metadata({"as_of": "2026-10-26"})).info.as_of == "2026-10-26"
    with pytest.raises(UnfitRoster, match="`as_of` that is not an ISO date"):
        index_of(table.replace_schema_metadata({"as_of": "last week"}))


def test_the_helper_compiles_and_says_what_is_wrong(policy: Policy, tmp_path: Path) -> None:
    path = tmp_path / "roster.parquet"
    path.write_bytes(parquet(columns()))
    file = RosterFile(path, Helper(timeout_s=60), bytes_max=10_000_000)
    index, problem = look(file)
    assert index is not None
    assert problem is None
    assert index.keyed(policy).find("W-é") == roster_of(policy, columns()).find("W-é")
    replace(path, parquet(columns() | {"worker_id": ["W-3", "W-1", "W-3"]}))
    kept, problem = look(file)
    assert kept is index
    assert problem == "the roster file is refused: column `worker_id` has 'W-3' twice; ids must be unique"


def test_a_helper_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "roster.parquet"
    path.write_bytes(parquet(columns()))
    file = RosterFile(path, Helper(timeout_s=0.001), bytes_max=10_000_000)
    assert look(file) == (None, "the roster file is refused: it could not be read within 0.001 s")


def test_a_closed_helper_ends_its_process(tmp_path: Path) -> None:
    path = tmp_path / "roster.parquet"
    os.mkfifo(path)  # whose reader waits for ever
    helper = Helper(timeout_s=60)
    failures: list[OSError] = []

    def compile_it() -> None:
        with tempfile.TemporaryFile() as out:
            try:
                helper(path, out, False)
            except OSError as error:
                failures.append(error)

    thread = threading.Thread(target=compile_it)
    thread.start()
    while helper._process is None:
        thread.join(0.01)
        assert thread.is_alive()
    helper.close()
    thread.join(30)
    assert [str(each) for each in failures] == ["it was being read when the daemon stopped"]


def test_what_may_be_better_later_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "roster.parquet"
    path.write_bytes(parquet(columns()))
    calls = 0

    def full_at_first(path: Path, out: BinaryIO, serving: bool) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(28, "No space left on device")
        compile_here(path, out, serving)

    file = RosterFile(path, full_at_first, bytes_max=10_000_000)
    assert "cannot be read: [Errno 28]" in str(look(file)[1])
    assert "cannot be read" in str(look(file)[1])
    assert calls == 1  # not at every look
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: inf))
    index, problem = look(file)
    assert index is not None
    assert problem is None


def test_an_empty_roster_serves(policy: Policy) -> None:
    table = pa.table(columns()).slice(0, 0)
    roster = roster_of(policy, {name: table.column(name) for name in table.column_names})
    assert roster.info.rows == 0
    assert roster.find("W-1") is None
    assert list(roster.candidates("janitor", "columbus, OH")) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data.pop("zip"), "`zip` is missing"),
        (lambda data: data.update(worker_id=["W-3", "W-1", "W-3"]), "'W-3' twice"),
        (lambda data: data.update(worker_id=["W-3", "W-1", None]), "`worker_id` has 1 nulls"),
        (lambda data: data.update(phone=["+1614", "a\0b", ""]), "`phone` has a text with a NUL"),
        (lambda data: data.update(worker_id=[3, 1, 2]), "`worker_id` is int64"),
        (lambda data: data.update(status=["active", "busy", "active"]), "`status` has 'busy'"),
        (lambda data: data.update(roles=["a", "b", "c"]), "`roles` is string; expected a list"),
        (lambda data: data.update(certs=[["OSHA-10"], [], []]), "`certs` is a list of string"),
        (lambda data: data.update(certs=[[{"code": "x"}], [], []]), "`certs.expires` is missing"),
        (lambda data: data.update(date_of_birth=["17.5.1990", None, None]), "`date_of_birth`"),
        (lambda data: data.update(date_of_birth=[1, 2, 3]), "`date_of_birth` is int64"),
        (
            lambda data: data.update(
                assignments=[
                    [{"order_id": "O", "start": "2026-11-02T06:00:00", "end": "2026-11-02T07:00:00"}],
                    [],
                    [],
                ]
            ),
            "`assignments.start` has a text that is not an ISO time with an offset",
        ),
        (
            lambda data: data.update(
                assignments=[[{"order_id": "O", "start": datetime(2026, 1, 1), "end": END}], [], []]  # noqa: DTZ001
            ),
            "`assignments.start` is timestamp",
        ),
    ],
)
def test_a_file_that_is_not_as_agreed_is_refused_by_name(policy: Policy, change: Any, reason: str) -> None:
    data = columns()
    change(data)
    with pytest.raises(UnfitRoster, match=reason):
        roster_of(policy, data)


def replace(path: Path, content: bytes) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(content)
    other.replace(path)


def look(file: RosterFile) -> tuple[Index | None, str | None]:
    file.look()
    return file.current, file.problem


def test_a_newer_file_replaces_the_snapshot_and_a_broken_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "roster.parquet"
    file = RosterFile(path, compile_here, bytes_max=10_000_000)
    assert look(file) == (None, "the roster file does not exist")

    path.write_bytes(parquet(columns()))
    os.utime(path, (1_790_000_000, 1_790_000_000))
    first, problem = look(file)
    assert first is not None
    assert (problem, first.info.as_of) == (None, "2026-09-21")
    assert look(file) == (first, None)  # nothing new, nothing read

    replace(path, parquet(columns())[:-20])
    kept, problem = look(file)
    assert kept is first
    assert "refused" in str(problem)

    path.unlink()
    assert look(file) == (first, "the roster file does not exist")

    replace(path, parquet(columns() | {"worker_id": ["A", "B", "C"]}))
    second, problem = look(file)
    assert problem is None
    assert second is not None
    assert second.find("A") is not None


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "roster.parquet"
    path.write_bytes(parquet(columns()))
    file = RosterFile(path, compile_here, bytes_max=1024)
    file.look()
    assert file.problem is not None
    assert "at most 1024 are read" in file.problem


def test_no_wrong_answer_while_files_are_swapped(tmp_path: Path) -> None:
    """Each file puts all workers in one city; a mixture of two files would show as a mixture of cities."""
    path = tmp_path / "roster.parquet"
    contents = [parquet(columns() | {"city": [city] * 3}) for city in ("Dayton", "Toledo")]
    replace(path, contents[0])
    file = RosterFile(path, compile_here, bytes_max=10_000_000)
    file.look()
    done = threading.Event()

    def swap() -> None:
        for turn in range(30):
            replace(path, contents[turn % 2])
            file.look()
        done.set()

    thread = threading.Thread(target=swap)
    thread.start()
    cities: set[str] = set()
    while not done.is_set():
        roster = file.current
        assert roster is not None
        rows = [roster.find(worker_id) for worker_id in ("W-3", "W-1", "W-é")]
        seen = {facts.city for facts in rows if facts is not None}
        assert len(seen) == 1
        assert None not in rows
        cities |= seen
    thread.join()
    assert cities <= {"Dayton", "Toledo"}
    assert file.problem is None
