"""What `chatd` counts."""

from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from chatd.engine.candidates import Standings
from chatd.engine.limits import Lines
from schemas.runs import Usage

OPERATION: Final = "chat"
"""The operation of all model calls, in OpenTelemetry's words."""

MODELS_MAX: Final = 64
OTHER_MODEL: Final = "other"

TOKEN_BUCKETS: Final = tuple(4**power for power in range(14))
OPERATION_BUCKETS_S: Final = tuple(round(0.01 * 2**power, 2) for power in range(14))
"""These two as OpenTelemetry's conventions have them, so that other platforms' can be laid beside ours."""
TTFT_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """`provider` and `outcome` come from closed sets: the configuration, and our error types.

    Names of models come from callers, so only those count that have answered, and only so many.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "chatd_calls",
            "Model calls: ok, aborted, or an error type.",
            ["provider", "outcome"],
            registry=registry,
        )
        self.attempts = Counter(
            "chatd_attempts",
            "Attempts at candidates, by provider: ok, or an error type.",
            ["provider", "result"],
            registry=registry,
        )
        self.hedges = Counter("chatd_hedges", "Second attempts beside a silent one.", registry=registry)
        self.drained = Counter(
            "chatd_drained", "Answers taken in to their end though their callers had gone.", registry=registry
        )
        self.cache_hits = Counter("chatd_cache_hits", "Answers given from the cache.", registry=registry)
        self.cost = Counter("chatd_cost_usd", "US dollars, as far as known.", ["provider"], registry=registry)
        self._in_flight = Gauge("chatd_in_flight", "Attempts under way.", registry=registry)
        self._waiting = Gauge("chatd_waiting", "Calls that wait for a place.", registry=registry)
        self._open_circuits = Gauge(
            "chatd_circuits_open", "Models whose circuit is open or half open.", registry=registry
        )
        self.tokens = Counter(
            "chatd_tokens", "Tokens, as providers count them.", ["provider", "direction"], registry=registry
        )
        self.token_usage = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of a call, as providers count them.",
            ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type"],
            registry=registry,
            buckets=TOKEN_BUCKETS,
        )
        self.operation_seconds = Histogram(
            "gen_ai_client_operation_duration_seconds",
            "Time of an attempt at a model; without an error type where it answered.",
            ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"],
            registry=registry,
            buckets=OPERATION_BUCKETS_S,
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

        # To look a child up by its labels costs more than all that is done with it.
        self._calls = cache(self.calls.labels)
        self._attempts = cache(self.attempts.labels)
        self._tokens = cache(self.tokens.labels)
        self._cost = cache(self.cost.labels)
        self._usage = cache(self.token_usage.labels)
        self._operation = cache(self.operation_seconds.labels)
        self._models: set[str] = set()

    def attempted(self, provider: str, result: str) -> None:
        self._attempts(provider, result).inc()

    def called(self, provider: str, outcome: str) -> None:
        self._calls(provider, outcome).inc()

    def operated(self, provider: str, model: str, error: str | None, seconds: float) -> None:
        """An attempt at a model is over."""
        if error is None and len(self._models) < MODELS_MAX:
            self._models.add(model)
        self._operation(OPERATION, provider, self._model(model), error or "").observe(seconds)

    def _model(self, model: str) -> str:
        return model if model in self._models else OTHER_MODEL

    def spent(self, provider: str, model: str, usage: Usage) -> None:
        """Add tokens and money, as far as they are known."""
        for kind, tokens in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
            if tokens is not None:
                self._usage(OPERATION, provider, self._model(model), kind).observe(tokens)
        self._tokens(provider, "prompt").inc(usage.prompt_tokens or 0)
        self._tokens(provider, "completion").inc(usage.completion_tokens or 0)
        self._cost(provider).inc(usage.cost_usd or 0)

    def watch(self, standings: Standings, lines: Lines) -> None:
        """Look at these whenever somebody reads the metrics."""
        self._in_flight.set_function(lambda: sum(one.in_flight for _, one in standings.all()))
        self._waiting.set_function(lambda: sum(waiting for _, waiting in lines.in_use().values()))
        self._open_circuits.set_function(
            lambda: sum(one.breaker.state != "closed" for _, one in standings.all())
        )
