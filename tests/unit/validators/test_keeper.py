"""Policy and roster are exchanged together: a verdict never rests on a policy and an index of another one."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from services.audit import AuditLog
from services.telemetry import CollectorRegistry
from tests.unit.validators.conftest import WORKERS
from validators.app import SHIPPED_POLICY
from validators.backends import FakeRoster, FixedRoster, Keys, Roster, Snapshot, WorkerFacts
from validators.engine import BrokenPolicy, Keeper, Metrics, Policy, PolicyFile, Rules

TEXT = SHIPPED_POLICY.read_text()
OTHER = TEXT.replace('"janitor" = ["custodian"]', '"janitor" = ["sweeper"]')


class KnownKeys(FakeRoster):
    """A roster that tells whose keys it has."""

    def __init__(self, workers: list[WorkerFacts], keys: Keys) -> None:
        super().__init__(workers, keys)
        self.keys = keys

    def keyed(self, keys: Keys) -> "KnownKeys":
        return KnownKeys(WORKERS, keys)


class Changing:
    """A source whose snapshot a test changes."""

    problem: str | None = None

    def __init__(self, current: Snapshot | None) -> None:
        self.current = current
        self.next: Callable[[], Snapshot] | None = None

    def look(self) -> None:
        if self.next is not None:
            self.current = self.next()


def replace(path: Path, text: str) -> None:
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(TEXT)
    return path


def rules_of(data: bytes) -> Rules:
    return Rules(Policy(data), [])


def keeper_of(path: Path, roster: Changing | FixedRoster) -> Keeper:
    return Keeper(PolicyFile(path, rules_of, AuditLog(path.parent)), roster, Metrics(CollectorRegistry()))


def keys_of(roster: Roster | None) -> Keys:
    assert isinstance(roster, KnownKeys)
    return roster.keys


def test_a_newer_policy_comes_with_a_roster_keyed_by_it(path: Path, policy: Policy) -> None:
    keeper = keeper_of(path, FixedRoster(FakeRoster(WORKERS, policy)))
    assert keeper.current.roster is None
    keeper.look()
    before = keeper.current
    keeper.look()
    assert keeper.current == before  # nothing new, nothing made
    replace(path, OTHER)
    keeper.look()
    after = keeper.current
    assert after.rules.policy.version != before.rules.policy.version
    for basis, role in ((before, "custodian"), (after, "sweeper")):
        assert basis.roster is not None
        policy = basis.rules.policy
        found = basis.roster.candidates(policy.role(role), policy.place("Columbus", "OH"))
        assert [facts.worker_id for facts in found] == ["W-012"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: replace(path, "["), "refused: the policy is not valid TOML"),
        (lambda path: replace(path, TEXT.replace("[sms]", "[text]")), "refused: the policy's `sms`"),
        (lambda path: replace(path, "#" * 5_000_000), "refused: the policy has more than"),
        (lambda path: path.unlink(), "does not exist"),
    ],
)
def test_a_broken_policy_is_told_and_changes_nothing(
    path: Path, change: Callable[[Path], None], reason: str
) -> None:
    keeper = keeper_of(path, FixedRoster())
    keeper.look()
    before = keeper.current
    change(path)
    for _ in range(2):
        keeper.look()
        assert keeper.current.rules is before.rules
        assert reason in str(keeper.current.policy_problem)
    replace(path, OTHER)
    keeper.look()
    assert keeper.current.policy_problem is None
    assert keeper.current.rules is not before.rules


def test_the_audit_log_has_every_policy_that_was_in_force_once(path: Path) -> None:
    keepers = [keeper_of(path, FixedRoster()) for _ in range(2)]  # two replicas on one data folder
    for text in (TEXT, OTHER, "[", TEXT):
        replace(path, text)
        for keeper in keepers:
            keeper.look()
    entries = AuditLog(path.parent).entries()
    assert [entry["change"] for entry in entries] == ["policy_in_force"] * 3
    first, second, third = (entry["detail"]["sha256"] for entry in entries)
    assert first == third != second
    assert entries[1]["detail"]["version"] == Policy(OTHER.encode()).version


def test_a_log_that_cannot_be_written_stops_no_verdict(path: Path) -> None:
    (path.parent / "audit").write_text("not a folder")
    keeper = keeper_of(path, FixedRoster())
    replace(path, OTHER)
    keeper.look()
    assert keeper.current.rules.policy.version == Policy(OTHER.encode()).version


def test_what_could_not_be_noted_is_noted_later(path: Path) -> None:
    keeper = keeper_of(path, FixedRoster())
    (path.parent / "audit").write_text("not a folder")
    keeper.look()
    keeper.look()
    (path.parent / "audit").unlink()
    for _ in range(2):
        keeper.look()
    (entry,) = AuditLog(path.parent).entries()
    assert entry["detail"]["version"] == Policy(TEXT.encode()).version


def test_what_cannot_be_read_at_the_start_is_raised(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none\.toml"):
        PolicyFile(tmp_path / "none.toml", rules_of, AuditLog(tmp_path))
    (tmp_path / "bad.toml").write_text("[")
    with pytest.raises(BrokenPolicy):
        PolicyFile(tmp_path / "bad.toml", rules_of, AuditLog(tmp_path))


def test_a_basis_is_never_a_mixture(path: Path, policy: Policy) -> None:
    source = Changing(KnownKeys(WORKERS, policy))
    source.next = lambda: KnownKeys(WORKERS, policy)
    keeper = keeper_of(path, source)
    keeper.look()
    done = threading.Event()

    def swap() -> None:
        for turn in range(12):
            replace(path, (OTHER, TEXT)[turn % 2])
            keeper.look()
        done.set()

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    while not done.is_set():
        basis = keeper.current
        assert keys_of(basis.roster) is basis.rules.policy
        seen.add(basis.rules.policy.version)
    thread.join()
    assert len(seen | {keeper.current.rules.policy.version}) == 2
