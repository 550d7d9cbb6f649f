"""What vectord counts about itself."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.telemetry import SECONDS


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.leaks = Counter(
            "vectord_gate_leaks",
            "Hits that the index let through and the check after it stopped. Must stay 0.",
            registry=registry,
        )
        self.collections = Gauge("vectord_collections", "Collections that are open.", registry=registry)
        self.upserted = Counter("vectord_points_upserted", "Points written.", registry=registry)
        self.deleted = Counter("vectord_points_deleted", "Points deleted.", registry=registry)
        self.search_seconds = Histogram(
            "vectord_search_seconds",
            "Time in the store for one search, without embedding.",
            ["mode"],
            registry=registry,
            buckets=SECONDS,
        )
        self.optimize_seconds = Histogram(
            "vectord_optimize_seconds", "Time to rebuild an index.", registry=registry, buckets=SECONDS
        )
