"""Where workers are looked up: a Parquet file held in columns and followed as it changes, and a fake."""

from validators.backends.parquet import BrokenRoster, ParquetRoster
from validators.backends.roster import (
    AssignmentFact,
    CertificateFact,
    FakeRoster,
    FixedRoster,
    Keys,
    Roster,
    RosterSource,
    WorkerFacts,
)
from validators.backends.watch import RosterFile

__all__ = [
    "AssignmentFact",
    "BrokenRoster",
    "CertificateFact",
    "FakeRoster",
    "FixedRoster",
    "Keys",
    "ParquetRoster",
    "Roster",
    "RosterFile",
    "RosterSource",
    "WorkerFacts",
]
