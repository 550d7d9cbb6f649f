"""Files are replaced whole or not at all; a lock has one holder."""

import os
from pathlib import Path

import pytest

from services import files


def test_a_file_is_made_and_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in (b"first", b"second"):
        files.replace(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, 0o644])
def test_the_mode_is_the_one_asked_for_whatever_was_there(tmp_path: Path, before: int | None) -> None:
    path = tmp_path / "secret"
    if before is not None:
        path.touch(before)
    files.replace(path, b"", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_reader_never_meets_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    seen = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        seen.append(path.read_bytes())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    files.replace(path, b"new")
    assert seen == [b"old", b"new"]  # the file under its other name, then the folder


def test_what_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError("the medium is gone")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="the medium is gone"):
        files.replace(path, b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"old")]


def test_a_lock_has_one_holder_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.lock(path) as held:
        held.write(b"me")
        with pytest.raises(BlockingIOError):
            files.lock(path, timeout_s=0.05)
        assert path.read_bytes() == b"me"
    with files.lock(path) as held:
        assert held.read() == b"me"


def test_a_lock_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.lock(tmp_path / "absent" / "lock")
