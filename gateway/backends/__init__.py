"""How requests reach the daemons: relayed as they are, or, for embeddings, gathered into frames."""

from gateway.backends.bulkhead import Bulkhead
from gateway.backends.hop import HopReplica, HttpHop, Part, ReplicaLost
from gateway.backends.relay import (
    Call,
    FakeUpstream,
    Headers,
    HttpUpstream,
    Listener,
    NotReached,
    Outgoing,
    Reply,
    Upstream,
    reply,
)
from gateway.backends.resolve import resolved

__all__ = [
    "Bulkhead",
    "Call",
    "FakeUpstream",
    "Headers",
    "HopReplica",
    "HttpHop",
    "HttpUpstream",
    "Listener",
    "NotReached",
    "Outgoing",
    "Part",
    "ReplicaLost",
    "Reply",
    "Upstream",
    "reply",
    "resolved",
]
