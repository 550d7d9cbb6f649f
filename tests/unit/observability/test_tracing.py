"""Which requests are traced, who decides it, and what a span says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services import context, daemon, ids, tracing
from services.context import RequestContext
from services.daemon import Daemon
from services.errors import PlatformError
from services.settings import DaemonSettings
from services.telemetry import CollectorRegistry
from services.testing import client_for
from services.tracing import FakeExporter, Span, Tracer

pytestmark = pytest.mark.anyio

OFFERED = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
TRACE_IDS = st.integers(1, 2**128 - 1).map(lambda number: f"{number:032x}")


def traced(exporter: FakeExporter, *, ratio: float = 1.0, trusted: bool = True) -> Daemon:
    @asynccontextmanager
    async def lifespan(_: Daemon) -> AsyncIterator[dict[str, Any]]:
        yield {"checks": {}}

    routes = daemon.router()

    @routes.get("/things/{name}")
    async def thing(name: str) -> dict[str, str]:
        if name == "broken":
            raise PlatformError("no")
        current = context.current()
        assert current is not None
        with tracing.child() as own:
            assert own is context.current()
            assert own is not None
            seen = own.traceparent
        assert context.current() is current
        return {"own": current.traceparent, "child": seen}

    return daemon.build(
        "tests",
        routes,
        lifespan,
        DaemonSettings(port=1),
        registry=CollectorRegistry(),
        trusted=trusted,
        tracer=Tracer(exporter, ratio=ratio),
    )


async def get(app: Daemon, path: str = "/things/a", **headers: str) -> httpx.Response:
    async with client_for(app) as client:
        return await client.get(path, headers=headers)


async def test_a_request_is_a_span_of_the_callers_trace() -> None:
    exporter = FakeExporter()
    answer = (await get(traced(exporter), traceparent=OFFERED)).json()
    (span,) = exporter.spans
    assert (span.trace_id, span.parent_id, span.traceparent) == ("a" * 32, "b" * 16, answer["own"])
    assert (span.name, span.kind, span.error) == ("GET /things/{name}", "server", None)
    assert answer["child"][:36] == answer["own"][:36]
    assert answer["child"][36:52] != answer["own"][36:52]


async def test_a_failure_of_ours_is_an_error_and_one_of_the_caller_is_none() -> None:
    exporter = FakeExporter()
    app = traced(exporter)
    async with client_for(app) as client:
        await client.get("/things/broken")
        await client.get("/nothing")
        await client.get("/metrics")
    assert [(span.name, span.error) for span in exporter.spans] == [
        ("GET /things/{name}", "500"),
        ("GET unmatched", None),
    ]
    assert exporter.spans[0].parent_id is None


async def test_a_method_that_somebody_made_up_is_no_label() -> None:
    exporter = FakeExporter()
    app = traced(exporter)
    async with client_for(app) as client:
        await client.request("BREW", "/things/a")
        metrics = (await client.get("/metrics")).text
    assert exporter.spans[0].attributes["http.request.method"] == "_OTHER"
    assert 'http_request_method="_OTHER"' in metrics
    assert "BREW" not in metrics


@pytest.mark.parametrize(
    ("ratio", "trusted", "flags", "recorded"),
    [
        (1.0, True, "01", True),
        (1.0, True, "00", False),
        (0.0, True, "01", True),  # decided by the daemon before
        (0.0, False, "01", False),  # a stranger may not have everything recorded
        (1.0, False, "00", False),
        (0.0, True, None, False),
        (1.0, False, None, True),
        (0.0, True, "03", True),  # the bit beside it says that the trace id is random
        (1.0, False, "02", False),
    ],
)
async def test_who_decides(ratio: float, trusted: bool, flags: str | None, recorded: bool) -> None:
    exporter = FakeExporter()
    headers = {} if flags is None else {"traceparent": OFFERED[:-2] + flags}
    answer = (await get(traced(exporter, ratio=ratio, trusted=trusted), **headers)).json()
    assert len(exporter.spans) == recorded
    for told in (answer["own"], answer["child"]):
        assert tracing.sampled(told) == recorded, "the next one must know"
        assert (int(told[-2:], 16) & 2) == (int(flags or "00", 16) & 2), "it is passed on as it came"


@given(TRACE_IDS, st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_holds_all_of_a_smaller_one(trace_id: str, one: float, other: float) -> None:
    offered = f"00-{trace_id}-{'b' * 16}-01"
    small, large = (
        tracing.sampled(Tracer(FakeExporter(), ratio=ratio).traceparent(offered, trusted=False))
        for ratio in sorted((one, other))
    )
    assert large >= small


def test_the_share_is_kept() -> None:
    tracer = Tracer(FakeExporter(), ratio=0.25)
    offered = [ids.child_traceparent(None) for _ in range(4000)]
    kept = sum(tracing.sampled(tracer.traceparent(one, trusted=False)) for one in offered)
    assert 800 < kept < 1200


def test_without_a_request_there_is_nothing_to_be_a_child_of() -> None:
    with tracing.child() as own:
        assert own is None


def test_nothing_is_traced_unless_a_collector_is_named(tmp_path: Path) -> None:
    assert tracing.open_tracer("tests", DaemonSettings(port=1, data=tmp_path), CollectorRegistry()) is None


def test_a_span_ends_when_it_is_told_and_begins_before() -> None:
    request = RequestContext("r", OFFERED)
    exporter = FakeExporter()
    Tracer(exporter, ratio=1).served(request, route="/a", method="GET", status=200, seconds=1.5)
    (span,) = exporter.spans
    assert span.ended_ns - span.started_ns == 1_500_000_000
    Tracer(exporter, ratio=1).export(Span("a", "client", OFFERED[:-2] + "00", None, 1, {}))
    assert len(exporter.spans) == 1
