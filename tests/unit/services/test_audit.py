"""The audit log: every change of a key is in it, before it holds, and no secret is."""

import errno
import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from services import files
from services.audit import AuditLog, account
from services.errors import Conflict, Unavailable
from services.keys import KeyGrant, KeyStore

ROOT = Path(__file__).parents[3]


def test_keys_leave_a_trace_and_no_secret(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    key, record = store.create(KeyGrant(name="ci", roles=("welder",), rpm=60))
    store.revoke("ci")
    log = AuditLog(tmp_path)
    created, revoked = log.entries()
    assert (created["change"], created["subject"], created["by"]) == ("key_created", "ci", account())
    assert (revoked["change"], revoked["subject"]) == ("key_revoked", "ci")
    assert created["detail"]["id"] == revoked["detail"]["id"] == record.id
    assert (created["detail"]["roles"], created["detail"]["rpm"]) == (["welder"], 60)
    assert created["ts"] <= revoked["ts"]
    [path] = log.folder.glob("*.jsonl")
    text = path.read_text()
    assert key not in text
    assert key[3:] not in text
    assert record.sha256 not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.folder.stat().st_mode) == 0o700


def test_what_was_refused_is_no_change(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    store.create(KeyGrant(name="ci"))
    with pytest.raises(Conflict):
        store.create(KeyGrant(name="ci"))
    assert len(AuditLog(tmp_path).entries()) == 1


def test_what_cannot_be_told_of_is_not_done(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    store.create(KeyGrant(name="first"))
    [path] = AuditLog(tmp_path).folder.glob("*.jsonl")
    path.unlink()
    path.mkdir()
    with pytest.raises(Unavailable, match="audit log"):
        store.create(KeyGrant(name="second"))
    with pytest.raises(Unavailable, match="audit log"):
        store.revoke("first")
    assert [(record.name, record.revoked_at) for record in store.load().records] == [("first", None)]


def test_a_full_file_is_followed_by_another_and_the_oldest_go(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, file_bytes_max=500, files_max=3)
    for number in range(40):
        log.append("key_created", f"key-{number}", "me", {"filler": "x" * 50})
    paths = sorted(log.folder.glob("*.jsonl"))
    assert len(paths) == 3
    assert all(path.stat().st_size < 1000 for path in paths)
    subjects = [entry["subject"] for entry in log.entries()]
    assert subjects == [f"key-{number}" for number in range(40 - len(subjects), 40)]


def test_a_line_that_a_crash_cut_off_takes_no_other_along(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.append("key_created", "a", "me", {})
    [path] = log.folder.glob("*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"change":"key_cre')
    log.append("key_created", "b", "me", {})
    assert [entry["subject"] for entry in log.entries()] == ["a", "b"]


def test_names_cannot_forge_lines(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.append("key_created", 'a"}\n{"change":"key_revoked"', "me\n", {"b": "\u2028\n"})
    [path] = log.folder.glob("*.jsonl")
    assert len(path.read_bytes().splitlines()) == 1
    assert len(log.entries()) == 1


def test_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from services.audit import AuditLog\n"
        "log = AuditLog(Path(sys.argv[1]), file_bytes_max=4000)\n"
        "for n in range(20): log.append('key_created', sys.argv[2], 'me', {'n': n, 'filler': 'x' * 100})"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name], cwd=ROOT) for name in "abc"
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    entries = AuditLog(tmp_path).entries()
    assert len(entries) == 60
    for name in "abc":
        assert [each["detail"]["n"] for each in entries if each["subject"] == name] == list(range(20))
    for path in AuditLog(tmp_path).folder.glob("*.jsonl"):
        assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_the_last_of_a_subject_is_not_said_again(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    for version in ("1", "1", "2", "1"):
        log.append_if_new("policy_in_force", "validators", "me", {"version": version})
        log.append("key_created", "between", "me", {})
    versions = [e["detail"]["version"] for e in log.entries() if e["change"] == "policy_in_force"]
    assert versions == ["1", "2", "1"]


def test_a_disk_that_takes_a_part_of_a_line_keeps_none_of_it(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from services.audit import AuditLog\n"
        "from services.errors import Unavailable\n"
        "log = AuditLog(Path(sys.argv[1])); log.append('key_created', 'a', 'me', {})\n"
        "[path] = log.folder.glob('*.jsonl'); whole = path.read_bytes()\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, hard))\n"
        "try: log.append('key_created', 'b', 'me', {})\n"
        "except Unavailable as error: code = error.code\n"
        "assert code == 'disk_full' and path.read_bytes() == whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)); log.append('key_created', 'c', 'me', {})\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, check=True, timeout=60)
    assert [entry["subject"] for entry in AuditLog(tmp_path).entries()] == ["a", "c"]


def test_who_asked_by_which_request_is_kept(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.append("roles_replaced", "roles", "ops", {"to": 1}, request_id="r-1")
    log.append("key_created", "ci", "me", {})
    asked, typed = log.entries()
    assert (asked["by"], asked["request_id"]) == ("ops", "r-1")
    assert "request_id" not in typed
    assert asked["schema_version"] == "1.1"


def test_a_key_file_that_cannot_be_written_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = KeyStore(tmp_path)
    store.create(KeyGrant(name="first"))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "replace", refuse)
    with pytest.raises(Unavailable, match=r"key file .* cannot be written") as raised:
        store.revoke("first")
    assert raised.value.code == "key_file_unwritable"
    (record,) = store.load().records
    assert record.revoked_at is None
