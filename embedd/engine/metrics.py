"""What `embedd` counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.hits = Counter("embedd_cache_hits", "Texts found in the cache.", registry=registry)
        self.misses = Counter("embedd_cache_misses", "Texts not found there.", registry=registry)
        self.evictions = Counter("embedd_cache_evictions", "Vectors pushed out.", registry=registry)
        self.entries = Gauge("embedd_cache_entries", "Vectors in the cache.", registry=registry)
        self.bytes = Gauge("embedd_cache_bytes", "Memory charged to the cache.", registry=registry)
        self.fragment_bytes = Gauge(
            "embedd_fragment_bytes", "Memory charged to encoded vectors.", registry=registry
        )
        self.joins = Counter("embedd_joined", "Texts that waited for another caller's.", registry=registry)
        self.abandoned = Counter(
            "embedd_abandoned", "Texts dropped before they were sent, nobody waiting.", registry=registry
        )
        self.calls = Counter("embedd_upstream_calls", "Calls to backends.", registry=registry)
        self.failures = Counter("embedd_upstream_failures", "Calls that failed.", registry=registry)
        self.batch_texts = Histogram(
            "embedd_batch_texts", "Texts in a call.", registry=registry, buckets=SIZES
        )
        self.waiting = Gauge("embedd_waiting_texts", "Texts waiting for a backend.", registry=registry)
        self.queue_seconds = Histogram(
            "embedd_queue_seconds", "Time a text waited for a backend.", registry=registry, buckets=SECONDS
        )
        self.upstream_seconds = Histogram(
            "embedd_upstream_seconds", "Time of a call.", registry=registry, buckets=SECONDS
        )
        self.backends_up = Gauge("embedd_backends_up", "Backends in use.", registry=registry)
