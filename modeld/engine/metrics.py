"""What `modeld` counts about its models."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """Labels are names of known models, so the series are few."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tokens = Counter(
            "modeld_tokens", "Tokens read and written.", ["model", "direction"], registry=registry
        )
        self.texts = Counter("modeld_embedded_texts", "Texts embedded.", ["model"], registry=registry)
        self.waiting = Gauge("modeld_waiting", "Requests that wait for a place.", ["kind"], registry=registry)
        self.loaded = Gauge("modeld_loaded", "Whether the model is in memory.", ["model"], registry=registry)
