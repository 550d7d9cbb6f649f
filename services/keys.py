"""API keys: one file of hashes, written by the command line and read by the gateway.

    <STILLHOUSE_DATA>/keys/keys.json    mode 0600, replaced as a whole, so that readers need no lock
    <STILLHOUSE_DATA>/keys/keys.lock    held by whoever is writing

A key is `sh-` and 32 random bytes. Its sha256 is all that is stored: 256 random bits cannot be guessed
from a fast hash, so the slow ones that passwords need would only slow down every request. Looking the hash
up in a dict tells a timing observer about hashes that they cannot choose, hence nothing about keys.
"""

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError, model_validator

from schemas.base import Model
from schemas.chat import GateSpec
from services import files, ids
from services.audit import AuditLog, account
from services.errors import Conflict, InvalidRequest, NotFound, Unavailable

Scope = Literal["chat", "embed", "vectors:read", "vectors:write", "validate", "observe", "distill", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
DEFAULT_SCOPES: Final[tuple[Scope, ...]] = tuple(scope for scope in SCOPES if scope != "admin")
"""What a key may do when nothing else was said: the work, not the administration."""

KEYS_MAX: Final = 10_000
FILE_BYTES_MAX: Final = 16 * 1024 * 1024
LOCK_TIMEOUT_S: Final = 10.0

GATE_BYTES_MAX: Final = 8 * 1024
"""A gate travels in a header with every chat of its key."""

# Names and roles travel between our daemons in headers: printable ASCII, roles separated by commas.
KeyName = Annotated[str, StringConstraints(pattern=r"^[!-~]([ -~]{0,62}[!-~])?$")]
JobRole = Annotated[str, StringConstraints(pattern=r"^[!-+\--~]([ -+\--~]{0,126}[!-+\--~])?$")]
PerMinute = Annotated[int, Field(ge=1, le=10**9)]

KeyState = Literal["active", "expired", "revoked"]


class KeyGrant(Model):
    """What a key is called and what it allows. `roles` None: any job role; `rpm`, `tpm` None: no limit.

    `gate`: what every chat answer must pass before the key's holder gets to see it.
    """

    name: KeyName
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)] = DEFAULT_SCOPES
    roles: Annotated[tuple[JobRole, ...], Field(min_length=1)] | None = None
    rpm: PerMinute | None = Field(None, description="Requests a minute.")
    tpm: PerMinute | None = Field(None, description="Tokens a minute.")
    expires_at: AwareDatetime | None = None
    gate: GateSpec | None = None

    @model_validator(mode="after")
    def _gate_fits_a_header(self) -> Self:
        if self.gate is not None and len(self.gate_header) > GATE_BYTES_MAX:
            raise ValueError(f"a gate has {len(self.gate_header)} bytes; at most {GATE_BYTES_MAX} fit")
        return self

    @property
    def gate_header(self) -> str:
        """The gate as compact ASCII JSON; empty where there is none."""
        if self.gate is None:
            return ""
        return json.dumps(self.gate.model_dump(mode="json"), separators=(",", ":"))


class KeyRecord(KeyGrant):
    """One key as it is stored: the grant, and the hash in place of the key. Times are UTC."""

    id: str
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    created_at: AwareDatetime
    revoked_at: AwareDatetime | None = None

    def state_at(self, now: datetime) -> KeyState:
        """Whether the key opens anything at `now` (which carries an offset)."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "active"


class KeyFile(Model):
    """The whole file. Ids and hashes are unique."""

    version: Literal[1] = 1
    keys: Annotated[tuple[KeyRecord, ...], Field(max_length=KEYS_MAX)] = ()

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for field in ("id", "sha256"):
            if len({getattr(record, field) for record in self.keys}) != len(self.keys):
                raise ValueError(f"two keys have the same {field}")
        return self


class Keys:
    """The keys at one moment, ready for look-ups."""

    def __init__(self, records: tuple[KeyRecord, ...]) -> None:
        self.records = records
        self._by_hash = {record.sha256: record for record in records}

    def __len__(self) -> int:
        """How many keys were ever made, revoked ones included.

        The gateway opens to everybody on loopback at 0: revoking the last key must not do that.
        """
        return len(self.records)

    def find(self, presented: str) -> KeyRecord | None:
        """The record of a key as the caller sent it, or None. The caller looks at `state_at`."""
        return self._by_hash.get(hash_key(presented))


def hash_key(key: str) -> str:
    """The sha256 of a key, 64 hex digits."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


class KeyStore:
    """The key file under a data folder."""

    def __init__(self, data: Path, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self.path = data / "keys" / "keys.json"
        self._audit = AuditLog(data)
        self._lock_path = self.path.with_suffix(".lock")
        self._lock_timeout_s = lock_timeout_s

    def signature(self) -> tuple[int, int, int] | None:
        """Changes whenever the file does; None when there is none. Cheap enough to poll."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def load(self) -> Keys:
        """All keys. No file means none were made.

        Raises `Unavailable` when the file cannot be read or understood: that is never the same as no keys.
        """
        return Keys(self._read().keys)

    def create(self, grant: KeyGrant) -> tuple[str, KeyRecord]:
        """Make a key and return it, once, with its record.

        Raises `Conflict` when a key of that name exists and is not revoked, since the name stands in logs
        and run records for whoever holds the key. The audit log is told first: what it cannot be told of is
        not done.
        """
        key = f"sh-{secrets.token_urlsafe(32)}"
        with self._locked():
            file = self._read()
            if any(record.name == grant.name and record.revoked_at is None for record in file.keys):
                raise Conflict(f"a key named {grant.name!r} exists; revoke it first or take another name")
            if len(file.keys) >= KEYS_MAX:
                raise Conflict(f"the file holds {len(file.keys)} keys; at most {KEYS_MAX} fit")
            record = KeyRecord(
                **grant.model_dump(), id=ids.uuid7(), sha256=hash_key(key), created_at=datetime.now(UTC)
            )
            granted = grant.model_dump(mode="json", exclude={"name"}, exclude_none=True)
            self._audit.append("key_created", record.name, account(), {"id": record.id, **granted})
            self._write(KeyFile(keys=(*file.keys, record)))
        return key, record

    def revoke(self, reference: str) -> KeyRecord:
        """Revoke the key of that id or name, and return its record.

        Raises `NotFound` when there is none, `Conflict` when it was revoked before.
        """
        with self._locked():
            file = self._read()
            found = [record for record in file.keys if reference in (record.id, record.name)]
            if not found:
                raise NotFound(f"there is no key with the id or name {reference!r}")
            live = next((record for record in found if record.revoked_at is None), None)
            if live is None:
                raise Conflict(f"the key {reference!r} was revoked at {found[-1].revoked_at}")
            revoked = live.model_copy(update={"revoked_at": datetime.now(UTC)})
            self._audit.append("key_revoked", live.name, account(), {"id": live.id})
            self._write(KeyFile(keys=tuple(revoked if record is live else record for record in file.keys)))
        return revoked

    def _read(self) -> KeyFile:
        try:
            with self.path.open("rb") as file:
                content = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return KeyFile()
        except OSError as error:
            raise self._broken(f"cannot be read: {error.strerror}") from error
        if len(content) > FILE_BYTES_MAX:
            raise self._broken(f"is larger than {FILE_BYTES_MAX} bytes")
        try:
            return KeyFile.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise self._broken(f"is broken: {where}: {first['msg']}") from None

    def _broken(self, what: str) -> Unavailable:
        return Unavailable(
            f"the key file {self.path} {what}; restore it, or move it away to start with no keys",
            code="key_file_broken",
        )

    def _write(self, file: KeyFile) -> None:
        try:
            files.replace(self.path, file.model_dump_json(indent=2).encode() + b"\n", mode=0o600)
        except OSError as error:
            raise Unavailable(
                f"the key file {self.path} cannot be written ({error.strerror}); it is as it was: make room,"
                " or see to its rights, and do it again",
                code="key_file_unwritable",
            ) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = files.lock(self._lock_path, timeout_s=self._lock_timeout_s)
        except BlockingIOError:
            raise Unavailable(
                f"another process has held {self._lock_path} for {self._lock_timeout_s:g} s; retry"
            ) from None
        except OSError as error:
            raise Unavailable(f"the key folder {self.path.parent} is not usable: {error.strerror}") from error
        with held:
            yield


DURATION = re.compile(r"([0-9]{1,6})([smhdw])")
UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_expiry(text: str, *, now: datetime) -> datetime:
    """When a key ends: a duration from `now` (`90m`, `12h`, `30d`, `4w`) or an ISO date or time.

    A date means its first moment; a time without an offset is UTC. Raises `InvalidRequest` for anything
    else, and for what is not in the future.
    """
    try:
        moment = _moment(text, now).astimezone(UTC)
    except OverflowError:
        raise InvalidRequest(f"the expiry {text!r} lies beyond the year 9999", param="expires") from None
    except ValueError:
        raise InvalidRequest(
            f"{text!r} is no expiry: give a duration such as 30d or 12h, or a date such as 2030-01-31",
            param="expires",
        ) from None
    if moment <= now:
        raise InvalidRequest(f"the expiry {text!r} is not in the future", param="expires")
    return moment


def _moment(text: str, now: datetime) -> datetime:
    if (match := DURATION.fullmatch(text)) is not None:
        return now + timedelta(**{UNITS[match[2]]: int(match[1])})
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
