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
        self.contexts_caught = Counter(
            "distill_contexts_caught",
            "Passages that the index let through to a task and the check of its group held back.",
            ["reason"],
            registry=registry,
        )
        self.contexts_caught = Counter(
            "distill_contexts_caught",
            "Passages that the index let through and the check after it did not, by reason.",
            ["reason"],
            registry=registry,
        )
        self.own_group_contexts = Counter(
            "distill_own_group_contexts",
            "Tasks that a replay gave up since earlier work of their own group was found for them.",
            registry=registry,
        )
        self.jobs = Counter("distill_jobs", "Jobs by how they ended.", ["stage", "state"], registry=registry)
