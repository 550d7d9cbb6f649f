"""What validators counts: verdicts, findings, the time of checks, and what they rest on."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)


class Metrics:
    """Kinds, verdicts and codes are those of the validators that are loaded, so the series are bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._verdicts = Counter(
            "validators_verdicts", "Verdicts given.", ["kind", "verdict"], registry=registry
        )
        self._findings = Counter("validators_findings", "Findings reported.", ["code"], registry=registry)
        self._seconds = Histogram(
            "validators_check_seconds", "Time of one check.", ["kind"], registry=registry, buckets=SECONDS
        )
        self._roster_rows = Gauge(
            "validators_roster_rows", "Workers on the roster in use.", registry=registry
        )
        self._roster_refused = Gauge(
            "validators_roster_refused", "1 while the roster file cannot be used.", registry=registry
        )
        self._policy_refused = Gauge(
            "validators_policy_refused", "1 while the policy file cannot be used.", registry=registry
        )
        # The library looks labels up under a lock; a verdict is given in less time than that takes thrice.
        self._verdict_of: dict[tuple[str, str], Counter] = {}
        self._seconds_of: dict[str, Histogram] = {}

    def basis(self, rows: int, roster_problem: str | None, policy_problem: str | None) -> None:
        """What verdicts rest on now: the workers on the roster, and what is wrong with the newest files."""
        self._roster_rows.set(rows)
        self._roster_refused.set(roster_problem is not None)
        self._policy_refused.set(policy_problem is not None)

    def verdict(self, kind: str, verdict: str, codes: Iterable[str], seconds: float) -> None:
        counter = self._verdict_of.get((kind, verdict))
        if counter is None:
            counter = self._verdict_of[kind, verdict] = self._verdicts.labels(kind, verdict)
        counter.inc()
        histogram = self._seconds_of.get(kind)
        if histogram is None:
            histogram = self._seconds_of[kind] = self._seconds.labels(kind)
        histogram.observe(seconds)
        for code in codes:
            self._findings.labels(code).inc()
