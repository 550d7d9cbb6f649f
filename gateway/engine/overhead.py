"""How much of the time of requests is the gateway's own."""

import time
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from services.telemetry import Durations

SECONDS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)


class Overhead(Collector):
    """From when a request came to our socket, accepted or not, until a daemon is sent it, and from the end of
    the daemon's answer until the caller is sent that: waiting to be read, reading, checking, waiting for a
    place or a connection, and writing.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Durations(
            "gateway_overhead_seconds",
            "The gateway's own share of the time of requests, waiting for a place included.",
            ("daemon",),
            SECONDS,
        )
        registry.register(self)

    def count(self, daemon: str, arrived_s: float, sent_s: float, answered_s: float) -> None:
        """The caller is sent the end of an answer.

        Its request came in, a daemon was sent it and answered it to its end at these times, by
        `time.perf_counter`.
        """
        self._seconds.observe((daemon,), time.perf_counter() - arrived_s - (answered_s - sent_s))

    def transit(self, daemon: str, arrived_s: float) -> "Transit":
        """A request to a daemon, which came in at `arrived_s` of `time.perf_counter`."""
        return Transit(self, daemon, arrived_s)

    def collect(self) -> Iterator[Metric]:
        yield self._seconds.family()


class Transit:
    """One request on its way to a daemon and back. One that never gets there, or back, is not counted."""

    __slots__ = ("_answered_s", "_arrived_s", "_daemon", "_overhead", "_sent_s")

    def __init__(self, overhead: Overhead, daemon: str, arrived_s: float) -> None:
        self._overhead = overhead
        self._daemon = daemon
        self._arrived_s = arrived_s
        self._sent_s = 0.0
        self._answered_s = 0.0

    def sent(self) -> None:
        """A daemon is sent it. Of several tries the last one counts: what the others took is our loss."""
        self._sent_s = time.perf_counter()

    def answered(self) -> None:
        """The daemon's answer is here, to its end."""
        self._answered_s = time.perf_counter()

    def over(self) -> None:
        """The caller is sent the end of it."""
        if self._sent_s and self._answered_s:
            self._overhead.count(self._daemon, self._arrived_s, self._sent_s, self._answered_s)
