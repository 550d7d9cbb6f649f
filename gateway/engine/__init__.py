"""The work of `gateway`: who may ask, how often, and which replica answers."""

from gateway.engine.board import Board, Itself
from gateway.engine.doorkeeper import LOCAL_PRINCIPAL, Doorkeeper, Principal
from gateway.engine.embeddings import Rendezvous, Vectors, Wanted
from gateway.engine.fleet import Fleet
from gateway.engine.limits import Bucket, Limiter
from gateway.engine.members import Members
from gateway.engine.meter import TokenMeter
from gateway.engine.overhead import Overhead, Transit
from gateway.engine.replicas import ReplicaMetrics
from gateway.engine.shared import shared_limits
from gateway.engine.watch import Watch

__all__ = [
    "LOCAL_PRINCIPAL",
    "Board",
    "Bucket",
    "Doorkeeper",
    "Fleet",
    "Itself",
    "Limiter",
    "Members",
    "Overhead",
    "Principal",
    "Rendezvous",
    "ReplicaMetrics",
    "TokenMeter",
    "Transit",
    "Vectors",
    "Wanted",
    "Watch",
    "shared_limits",
]
