"""What `chatd` counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

TTFT_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """`provider` and `outcome` come from closed sets: the configuration, and our error types."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "chatd_calls",
            "Model calls: ok, aborted, or an error type.",
            ["provider", "outcome"],
            registry=registry,
        )
        self.tokens = Counter(
            "chatd_tokens", "Tokens, as providers count them.", ["provider", "direction"], registry=registry
        )
        self.ttft = Histogram(
            "chatd_ttft_seconds",
            "Time to the first token of streams.",
            ["provider"],
            registry=registry,
            buckets=TTFT_BUCKETS_S,
        )
        self.iterations = Counter(
            "chatd_iterations", "Answers of /v1/iterate by outcome.", ["outcome"], registry=registry
        )
        self.gated = Counter(
            "chatd_gated_answers",
            "Answers of chats with `validate`, by verdict, and whether they left.",
            ["verdict", "outcome"],
            registry=registry,
        )
        self.spool_bytes = Gauge(
            "chatd_spool_bytes", "Bytes that distill has not acknowledged.", registry=registry
        )
        self.spool_records = Gauge("chatd_spool_records", "Records among them.", registry=registry)
        self.rejected = Counter("chatd_records_rejected", "Records that distill refused.", registry=registry)
