"""How many replicas the gateway knows of each daemon, and how many of them it passes over."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.engine.fleet import Standing

Standings = Mapping[str, Callable[[], Sequence[Standing]]]


class ReplicaMetrics(Collector):
    """Looks at the fleets whenever somebody reads the metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._fleets: Standings = {}
        registry.register(self)

    def watch(self, fleets: Standings) -> None:
        """Look at these from here on."""
        self._fleets = fleets

    def collect(self) -> Iterator[Metric]:
        known = GaugeMetricFamily("gateway_replicas", "Replicas of a daemon.", labels=["daemon"])
        ejected = GaugeMetricFamily(
            "gateway_replicas_ejected", "Those passed over, since they did not answer.", labels=["daemon"]
        )
        under_way = GaugeMetricFamily(
            "gateway_upstream_in_flight", "Requests under way to a daemon.", labels=["daemon"]
        )
        waiting = GaugeMetricFamily(
            "gateway_upstream_waiting", "Requests that wait for a place at a daemon.", labels=["daemon"]
        )
        for daemon, standings in self._fleets.items():
            those = standings()
            known.add_metric([daemon], len(those))
            ejected.add_metric([daemon], sum(one.ejected for one in those))
            under_way.add_metric([daemon], sum(one.in_flight for one in those))
            waiting.add_metric([daemon], sum(one.waiting for one in those))
        yield from (known, ejected, under_way, waiting)
