"""A span for every call of a backend, in the trace of each request that has texts in it."""

import time
from collections.abc import Iterable, Sequence

from embedd.engine.flights import Asker, Flight, Plan
from services import context, tracing
from services.tracing import Span, Tracer


class Spans:
    """`tracer` is None where nothing is traced.

    A call serves several requests, so the backend is told of none of their traces; each of those is told of
    the call.
    """

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer

    def wanted(self, flights: Iterable[Flight]) -> None:
        """The current request waits for these."""
        request = context.current()
        if self._tracer is None or request is None or not tracing.sampled(request.traceparent):
            return
        asker = Asker(request, time.perf_counter())
        for flight in flights:
            flight.askers.append(asker)

    def called(self, plan: Plan, batch: Sequence[Flight], started_s: float, error: str | None) -> None:
        """A backend was called for these texts, from `started_s` of `time.perf_counter` until now."""
        if self._tracer is None:
            return
        askers = {asker.request.traceparent: asker for flight in batch for asker in flight.askers}
        for asker in askers.values():
            self._tracer.export(_span(plan, asker, len(batch), started_s, error))


def _span(plan: Plan, asker: Asker, texts: int, started_s: float, error: str | None) -> Span:
    under = tracing.child_of(asker.request)
    return Span(
        name=f"embeddings {plan.model}",
        kind="client",
        traceparent=under.traceparent,
        parent_id=under.parent_id,
        # Who joined a call that was under way waited for the rest of it.
        seconds=time.perf_counter() - max(started_s, asker.since_s),
        attributes={
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": plan.kind,
            "gen_ai.request.model": plan.model,
            "stillhouse.batch_texts": texts,
        },
        error=error,
    )
