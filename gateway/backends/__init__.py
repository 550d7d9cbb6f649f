"""How requests reach the daemons: relayed as they are, or, for embeddings, gathered into frames."""

from gateway.backends.hop import HopReplica, HttpHop, Part, ReplicaLost
from gateway.backends.relay import FakeUpstream, HttpUpstream, NotReached, Outgoing, Reply, Upstream, reply
from gateway.backends.resolve import resolved

__all__ = [
    "FakeUpstream",
    "HopReplica",
    "HttpHop",
    "HttpUpstream",
    "NotReached",
    "Outgoing",
    "Part",
    "ReplicaLost",
    "Reply",
    "Upstream",
    "reply",
    "resolved",
]
