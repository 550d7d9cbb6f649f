"""Where workers are looked up: a Parquet file as an index in memory, followed as it changes, and a fake."""

from validators.backends.index import Index
from validators.backends.roster import (
    AssignmentFact,
    BrokenRoster,
    CertificateFact,
    FakeRoster,
    FixedRoster,
    Keys,
    Roster,
    RosterSource,
    Snapshot,
    WorkerFacts,
)
from validators.backends.watch import Helper, RosterFile, Stamp, stamp_of

__all__ = [
    "AssignmentFact",
    "BrokenRoster",
    "CertificateFact",
    "FakeRoster",
    "FixedRoster",
    "Helper",
    "Index",
    "Keys",
    "Roster",
    "RosterFile",
    "RosterSource",
    "Snapshot",
    "Stamp",
    "WorkerFacts",
    "stamp_of",
]
