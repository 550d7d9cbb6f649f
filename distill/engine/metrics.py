"""What `distill` counts about its own work."""

from collections import Counter as Counts
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from schemas.replay import Drift, DriftMetric, DriftProperty

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
        self.waiting_bytes = Gauge(
            "distill_waiting_bytes", "Bytes of records that wait to be made durable.", registry=registry
        )
        self.job_running = Gauge("distill_job_running", "1 while a stage runs.", registry=registry)
        self.datasets = Gauge("distill_datasets", "Exported datasets.", registry=registry)
        self.torn_tails = Counter(
            "distill_torn_tails", "Unfinished last lines moved aside at the start.", registry=registry
        )
        self.quarantined = Counter(
            "distill_quarantined", "Records that a stage left out.", ["stage"], registry=registry
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
        self.drifted = Gauge(
            "distill_drifted",
            "Differences that the last comparison of windows found to be no accident, by what differs.",
            ["what"],
            registry=registry,
        )
        self.drift_as_of = Gauge(
            "distill_drift_as_of_seconds",
            "Unix time of the latest evidence that the last comparison of windows looked at.",
            registry=registry,
        )
        self.jobs = Counter("distill_jobs", "Jobs by how they ended.", ["stage", "state"], registry=registry)

    def tell_drift(self, drift: Drift) -> None:
        """Set what alerts go by: 0 for what was looked at and is as it was."""
        found = Counts(dict.fromkeys((*get_args(DriftProperty), *get_args(DriftMetric)), 0))
        found.update(one.property for one in drift.inputs if one.drifted)
        found.update(one.metric for one in drift.outputs if one.drifted)
        for name, count in found.items():
            self.drifted.labels(name).set(count)
        self.drift_as_of.set(drift.ts.timestamp())
