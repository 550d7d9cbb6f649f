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
        self.waiting = Gauge("vectord_waiting", "Store calls that wait for a thread.", registry=registry)
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
        self.recall = Gauge(
            "vectord_recall_at_10",
            "Share of the 10 nearest that searches find, over the last sampled queries of a collection.",
            ["collection"],
            registry=registry,
        )
        self.recall_samples = Counter(
            "vectord_recall_samples",
            "Sampled queries: run again exactly, or skipped because one was under way or had just been.",
            ["outcome"],
            registry=registry,
        )
        self.canary_probes = Counter(
            "vectord_canary_probes",
            "Questions asked as one role for a point of another, and as its own.",
            registry=registry,
        )
        self.canary_leaks = Counter(
            "vectord_canary_leaks",
            "Points that an answer showed to a role that may not see them. Must stay 0.",
            registry=registry,
        )
        self.canaries_missing = Counter(
            "vectord_canaries_missing",
            "Points that their own role was not shown, though they are there.",
            registry=registry,
        )
