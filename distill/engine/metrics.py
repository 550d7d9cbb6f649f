"""What `distill` counts about its own work."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

GROUP_RECORDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.appended = Counter(
            "distill_records_appended", "Records written to the log.", ["schema"], registry=registry
        )
        self.repeated = Counter(
            "distill_records_repeated", "Records that were in the log already.", registry=registry
        )
        self.rejected = Counter(
            "distill_records_rejected", "Records not taken, by code.", ["code"], registry=registry
        )
        self.fsyncs = Counter("distill_fsyncs", "Groups of records made durable.", registry=registry)
        self.group_records = Histogram(
            "distill_group_records",
            "Records made durable by one fsync.",
            registry=registry,
            buckets=GROUP_RECORDS,
        )
        self.log_bytes = Gauge("distill_log_bytes", "Bytes in the log.", registry=registry)
        self.torn_tails = Counter(
            "distill_torn_tails", "Unfinished last lines moved aside at the start.", registry=registry
        )
        self.quarantined = Counter(
            "distill_quarantined", "Records that a stage left out.", ["stage"], registry=registry
        )
        self.jobs = Counter("distill_jobs", "Jobs by how they ended.", ["stage", "state"], registry=registry)
