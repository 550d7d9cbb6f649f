"""How requests reach the daemons: relayed as they are, or, for embeddings, gathered into frames."""

from gateway.backends.bulkhead import Bulkhead
from gateway.backends.hop import HopReplica, HttpHop, Part, ReplicaLost
from gateway.backends.probe import FakeProber, HttpProber, Prober
from gateway.backends.rates import FakeRates, Rates, Taken
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
    "FakeProber",
    "FakeRates",
    "FakeUpstream",
    "Headers",
    "HopReplica",
    "HttpHop",
    "HttpProber",
    "HttpUpstream",
    "Listener",
    "NotReached",
    "Outgoing",
    "Part",
    "Prober",
    "Rates",
    "ReplicaLost",
    "Reply",
    "Taken",
    "Upstream",
    "reply",
    "resolved",
]
