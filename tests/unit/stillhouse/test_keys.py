"""The key file: what is stored, what is found, and what two writers or a broken file do to it."""

import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.errors import Conflict, InvalidRequest, NotFound, Unavailable
from services.keys import DEFAULT_SCOPES, KeyGrant, KeyRecord, KeyStore, parse_expiry

NOW = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
ROOT = Path(__file__).parents[3]


def test_a_key_is_found_by_itself_alone(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    key, record = store.create(KeyGrant(name="ci", roles=("forklift operator",), rpm=60))
    keys = store.load()
    assert keys.find(key) == record
    assert record.scopes == DEFAULT_SCOPES
    assert "admin" not in record.scopes
    assert keys.find(key[:-1]) is None
    assert keys.find(record.sha256) is None
    assert keys.find("") is None


def test_the_key_has_256_bits_and_is_not_stored(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    key, _ = store.create(KeyGrant(name="ci"))
    assert key.startswith("sh-")
    assert len(key) == 3 + 43
    for path in store.path.parent.iterdir():
        assert key not in path.read_text()
        assert key[3:] not in path.read_text()


def test_only_the_owner_reads_the_file(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    store.create(KeyGrant(name="ci"))
    store.path.chmod(0o644)  # even when somebody opened it up in between
    store.create(KeyGrant(name="other"))
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert sorted(path.name for path in store.path.parent.iterdir()) == ["keys.json", "keys.lock"]


def test_no_file_is_no_keys(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    assert len(store.load()) == 0
    assert store.signature() is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version":2,"keys":[]}',
        b'{"version":1,"keys":[{"id":"a"}]}',
        b'{"version":1,"keys":[],"more":1}',
        b"\xff\xfe",
    ],
)
def test_a_broken_file_is_an_error_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    store = KeyStore(tmp_path)
    store.path.parent.mkdir()
    store.path.write_bytes(content)
    with pytest.raises(Unavailable, match=r"keys\.json") as caught:
        store.load()
    assert caught.value.code == "key_file_broken"
    with pytest.raises(Unavailable):
        store.create(KeyGrant(name="ci"))
    assert store.path.read_bytes() == content


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    store.path.mkdir(parents=True)  # a folder in its place: unreadable to root as well
    with pytest.raises(Unavailable, match="cannot be read"):
        store.load()


def test_a_hash_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    store.create(KeyGrant(name="a"))
    store.create(KeyGrant(name="b"))
    first, second = store.load().records
    store.path.write_text(store.path.read_text().replace(second.sha256, first.sha256))
    with pytest.raises(Unavailable, match="same sha256"):
        store.load()


def test_revoking_keeps_the_record(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    key, record = store.create(KeyGrant(name="ci"))
    before = store.signature()
    store.revoke("ci")
    assert store.signature() != before
    found = store.load().find(key)
    assert found is not None
    assert found.id == record.id
    assert found.state_at(datetime.now(UTC)) == "revoked"
    assert len(store.load()) == 1  # the gateway does not open up because the last key was revoked


def test_revoking_again_or_nothing_is_refused(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    _, record = store.create(KeyGrant(name="ci"))
    store.revoke(record.id)
    with pytest.raises(Conflict):
        store.revoke("ci")
    with pytest.raises(NotFound, match="'cd'"):
        store.revoke("cd")


def test_a_name_is_free_again_after_revoking(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    old, _ = store.create(KeyGrant(name="ci"))
    with pytest.raises(Conflict, match="'ci'"):
        store.create(KeyGrant(name="ci"))
    store.revoke("ci")
    new, _ = store.create(KeyGrant(name="ci"))
    store.revoke("ci")
    keys = store.load()
    assert [keys.find(key) is not None for key in (old, new)] == [True, True]
    assert all(record.state_at(NOW) == "revoked" for record in keys.records)


@pytest.mark.parametrize("name", ["", " ci", "ci ", "a\nb", "zoë", "x" * 65])
def test_names_fit_a_header(name: str) -> None:
    with pytest.raises(ValidationError):
        KeyGrant(name=name)


@pytest.mark.parametrize("role", ["", "a,b", " a", "a\r\nx: y", "röle"])
def test_roles_fit_a_header_with_commas(role: str) -> None:
    with pytest.raises(ValidationError):
        KeyGrant(name="ci", roles=(role,))


def test_unknown_scopes_and_empty_lists_are_refused() -> None:
    with pytest.raises(ValidationError):
        KeyGrant.model_validate({"name": "ci", "scopes": ["vectors"]})
    with pytest.raises(ValidationError):
        KeyGrant(name="ci", scopes=())
    with pytest.raises(ValidationError):
        KeyGrant(name="ci", roles=())


def test_a_key_expires_at_its_moment() -> None:
    record = KeyRecord(name="ci", id="1", sha256="0" * 64, created_at=NOW, expires_at=NOW)
    assert record.state_at(NOW - timedelta(microseconds=1)) == "active"
    assert record.state_at(NOW) == "expired"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", NOW + timedelta(minutes=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("30d", NOW + timedelta(days=30)),
        ("4w", NOW + timedelta(weeks=4)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T10:00", datetime(2027, 1, 31, 10, tzinfo=UTC)),
        ("2027-01-31T10:00:00+02:00", datetime(2027, 1, 31, 8, tzinfo=UTC)),
        ("2027-01-31T10:00:00Z", datetime(2027, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_expiry_is_a_duration_or_a_moment(text: str, moment: datetime) -> None:
    assert parse_expiry(text, now=NOW) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0d",
        "-1d",
        "30",
        "30 d",
        "1.5h",
        "soon",
        "2026-12-01",
        "2020-01-01",
        "999999w",
        "9999-12-31T23-12:00",
    ],
)
def test_other_expiries_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_expiry(text, now=NOW)
    assert caught.value.param == "expires"


MAKE_TEN = """
import sys
from pathlib import Path
from services.keys import KeyGrant, KeyStore
store = KeyStore(Path(sys.argv[1]))
for number in range(10):
    store.create(KeyGrant(name=f"{sys.argv[2]}-{number}"))
"""


def test_two_processes_lose_no_key(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", MAKE_TEN, str(tmp_path), name], cwd=ROOT)
        for name in ("left", "right")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    names = sorted(record.name for record in KeyStore(tmp_path).load().records)
    assert names == sorted(f"{side}-{number}" for side in ("left", "right") for number in range(10))


HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_waiting_for_the_lock_has_an_end_and_reading_does_not_wait(tmp_path: Path) -> None:
    store = KeyStore(tmp_path, lock_timeout_s=0.1)
    key, _ = store.create(KeyGrant(name="ci"))
    command = [sys.executable, "-c", HOLD, str(store.path.with_suffix(".lock"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Unavailable, match=r"0\.1 s"):
            store.create(KeyGrant(name="other"))
        assert store.load().find(key) is not None
        holder.communicate()
    store.create(KeyGrant(name="other"))
