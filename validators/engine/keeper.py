"""Follows the files of policy and roster, and exchanges what verdicts rest on as a whole."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from services.audit import AuditLog, account
from services.errors import Unavailable
from validators.backends import RosterSource, Snapshot, Stamp, stamp_of
from validators.engine.basis import Basis, Rules
from validators.engine.metrics import Metrics
from validators.engine.policy import BrokenPolicy

log = structlog.get_logger(__name__)

Build = Callable[[bytes], Rules]
"""Makes rules from a policy file's bytes. Raises `BrokenPolicy`."""

POLICY_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class InForce:
    """What the audit log is told of rules: who owns their file, and which they are."""

    owner: str
    detail: dict[str, Any]

    @classmethod
    def of(cls, rules: Rules, data: bytes, owner: str) -> "InForce":
        """Validators are named with their versions: a third party's may change with no change of the file."""
        return cls(
            owner,
            {
                "version": rules.policy.version,
                "sha256": hashlib.sha256(data).hexdigest(),
                "validators": {
                    kind: f"{info['name']} {info['version']}" for kind, info in rules.infos.items()
                },
            },
        )


class PolicyFile:
    """The rules of a file. `look` reads it again when it has changed, and keeps the last good ones."""

    def __init__(self, path: Path, build: Build, audit: AuditLog) -> None:
        """Raises `OSError` or `BrokenPolicy`: without any rules there is nothing to serve."""
        self._path = path
        self._build = build
        self._audit = audit
        self._seen: Stamp | None = stamp_of(path)
        self.rules, self._in_force = self._load()
        self._noted: InForce | None = None
        self._unnoted: InForce | None = None
        self.problem: str | None = None

    def look(self) -> None:
        """What is wrong with a newer file is in `problem`. The audit log is told which rules are in force."""
        self._read_if_newer()
        if self._noted != self._in_force:
            self._note(self._in_force)

    def _note(self, what: InForce) -> None:
        """Tell the audit log; the next look tries again where that fails, since no verdict waits for it."""
        try:
            self._audit.append_if_new("policy_in_force", "validators", what.owner, what.detail)
        except Unavailable as error:
            if self._unnoted != what:
                log.warning("policy not noted in the audit log yet", reason=error.message)
            self._unnoted = what
        else:
            self._noted = what

    def _read_if_newer(self) -> None:
        stamp: Stamp | None = None
        try:
            stamp = stamp_of(self._path)
            if stamp == self._seen:
                return
            rules, in_force = self._load()
            if stamp_of(self._path) != stamp:
                return  # written to meanwhile: the next look reads it
        except FileNotFoundError:
            self._refuse("the policy file does not exist", None)
        except (OSError, BrokenPolicy) as error:
            self._refuse(f"the policy file is refused: {error}", stamp)
        else:
            self._seen, self.rules, self._in_force, self.problem = stamp, rules, in_force, None
            log.info("policy read", version=rules.policy.version)

    def _load(self) -> tuple[Rules, InForce]:
        with self._path.open("rb") as file:
            data = file.read(POLICY_BYTES_MAX + 1)
            owner = account(os.fstat(file.fileno()).st_uid)
        if len(data) > POLICY_BYTES_MAX:
            raise BrokenPolicy(f"the policy has more than {POLICY_BYTES_MAX} bytes")
        rules = self._build(data)
        return rules, InForce.of(rules, data, owner)

    def _refuse(self, problem: str, stamp: Stamp | None) -> None:
        self._seen = stamp
        if problem != self.problem:
            log.error("policy refused", reason=problem)
        self.problem = problem


class Keeper:
    """Has the basis that counts now. One thread at a time may call `look`; anybody may read `current`."""

    def __init__(self, policy: PolicyFile, roster: RosterSource, metrics: Metrics) -> None:
        self._policy = policy
        self._roster = roster
        self._metrics = metrics
        self._keyed: tuple[Rules, Snapshot | None] = (policy.rules, None)
        self.current = Basis(policy.rules, None, roster.problem)

    def look(self) -> None:
        """Take up a newer policy or roster, both at once where both are new."""
        self._policy.look()
        self._roster.look()
        rules, snapshot = self._policy.rules, self._roster.current
        roster = self.current.roster
        if self._keyed != (rules, snapshot):
            roster = snapshot.keyed(rules.policy) if snapshot is not None else None
            self._keyed = (rules, snapshot)
        self.current = Basis(rules, roster, self._roster.problem, self._policy.problem)
        rows = roster.info.rows if roster is not None else 0
        self._metrics.basis(rows, self._roster.problem, self._policy.problem)
