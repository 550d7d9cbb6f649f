"""The audit log: who changed what is allowed or in force, and when. Appended to, never rewritten; no secrets.

<STILLHOUSE_DATA>/audit/audit-000001.jsonl    mode 0600, one JSON object a line; the highest number goes on
<STILLHOUSE_DATA>/audit/audit.lock            held by whoever is writing
"""

import errno
import os
import pwd
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from services import files
from services.errors import Unavailable

Change = Literal[
    "key_created",
    "key_revoked",
    "signing_key_created",
    "policy_in_force",
    "configuration_in_force",
    "roles_replaced",
    "collection_created",
    "collection_restored",
    "collection_changed",
    "collection_deleted",
]

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
FILES_MAX: Final = 64
"""The oldest are removed beyond it, which takes millions of changes."""
LOCK_TIMEOUT_S: Final = 10.0
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def account(uid: int | None = None) -> str:
    """The name of an account of this machine, its number where it has none; of this process unless given."""
    uid = os.getuid() if uid is None else uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


class AuditLog:
    """The audit log under a data folder. Several processes may write to it."""

    def __init__(
        self, data: Path, *, file_bytes_max: int = FILE_BYTES_MAX, files_max: int = FILES_MAX
    ) -> None:
        self.folder = data / "audit"
        self._file_bytes_max = file_bytes_max
        self._files_max = files_max

    def append(
        self, change: Change, subject: str, by: str, detail: dict[str, Any], *, request_id: str | None = None
    ) -> None:
        """Put a change on the medium. Raises `Unavailable` when that cannot be done.

        `by` is an account of this machine, or the name of the key that asked for it in `request_id`.
        """
        entry = _entry(change, subject, by, detail)
        self._write(entry if request_id is None else entry | {"request_id": request_id}, unless_last=False)

    def append_if_new(self, change: Change, subject: str, by: str, detail: dict[str, Any]) -> None:
        """The same, unless the last such change of the subject was the same: replicas see it as well."""
        self._write(_entry(change, subject, by, detail), unless_last=True)

    def entries(self) -> list[dict[str, Any]]:
        """What was written, the oldest first. A line that a crash cut off is passed over."""
        return [entry for path in self._files() for entry in _entries_of(path)]

    def _write(self, entry: dict[str, Any], *, unless_last: bool) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with files.lock(self.folder / "audit.lock", timeout_s=LOCK_TIMEOUT_S):
                if not (unless_last and self._is_last(entry)):
                    self._append(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            raise Unavailable(
                f"the audit log {self.folder} cannot be written ({error.strerror or error}), and without it"
                " nothing is changed; make room, or see to its rights, and do it again",
                code="disk_full" if error.errno in FULL else "audit_unwritable",
                retry_after_s=5.0,
            ) from error

    def _is_last(self, entry: dict[str, Any]) -> bool:
        for path in reversed(self._files()):
            for other in reversed(_entries_of(path)):
                if (other.get("change"), other.get("subject")) == (entry["change"], entry["subject"]):
                    return bool(other.get("detail") == entry["detail"])
        return False

    def _append(self, line: bytes) -> None:
        path = self._current()
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a crash cut the last line off
                line = b"\n" + line
            if file.write(line) < len(line):  # a disk that is full takes a part
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        files.sync_folder(self.folder)

    def _current(self) -> Path:
        """The file that goes on: a new one when the last is full."""
        found = self._files()
        if found and found[-1].stat().st_size < self._file_bytes_max:
            return found[-1]
        number = int(found[-1].stem.removeprefix("audit-")) + 1 if found else 1
        for path in found[: max(0, len(found) - self._files_max + 1)]:
            path.unlink()
        return self.folder / f"audit-{number:06}.jsonl"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("audit-[0-9]*.jsonl"))


def _entry(change: Change, subject: str, by: str, detail: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": "stillhouse.audit_entry",
        "schema_version": "1.1",
        "ts": datetime.now(UTC),
        "change": change,
        "subject": subject,
        "by": by,
        "detail": detail,
    }


def _entries_of(path: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines():
        try:
            entries.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            continue
    return entries
