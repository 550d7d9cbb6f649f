"""What keeps figures small: few names of models, bounded answers of daemons, no tracing without its extra."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from chatd.engine.metrics import MODELS_MAX, OPERATION_BUCKETS_S, TOKEN_BUCKETS, Metrics
from gateway.backends import HttpProber
from schemas.runs import Usage
from services import tracing
from services.errors import InvalidRequest, Unavailable
from services.settings import DaemonSettings
from services.telemetry import Durations, render
from services.testing import free_port

pytestmark = pytest.mark.anyio

OPERATIONS = "gen_ai_client_operation_duration_seconds_count"


def labels(model: str, error: str = "") -> dict[str, str]:
    return {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "ollama",
        "gen_ai_request_model": model,
        "error_type": error,
    }


def test_only_models_that_have_answered_are_named() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.operated("ollama", "made-up", "model_not_found", 0.1)
    metrics.operated("ollama", "real", None, 0.1)
    metrics.operated("ollama", "real", "upstream_timeout", 0.1)
    assert registry.get_sample_value(OPERATIONS, labels("other", "model_not_found")) == 1
    assert registry.get_sample_value(OPERATIONS, labels("real")) == 1
    assert registry.get_sample_value(OPERATIONS, labels("real", "upstream_timeout")) == 1
    assert registry.get_sample_value(OPERATIONS, labels("made-up", "model_not_found")) is None


def test_no_more_models_are_named_than_fit() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for number in range(MODELS_MAX + 5):
        metrics.operated("ollama", f"model-{number}", None, 0.1)
    assert registry.get_sample_value(OPERATIONS, labels("other")) == 5


def test_histograms_are_cut_where_the_conventions_say() -> None:
    assert (TOKEN_BUCKETS[0], TOKEN_BUCKETS[-1], len(TOKEN_BUCKETS)) == (1, 67_108_864, 14)
    assert (OPERATION_BUCKETS_S[0], OPERATION_BUCKETS_S[-1], len(OPERATION_BUCKETS_S)) == (0.01, 81.92, 14)


def test_an_answer_of_no_tokens_is_an_answer() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.operated("ollama", "real", None, 0.1)
    metrics.spent("ollama", "real", Usage(prompt_tokens=7, completion_tokens=0))
    usage = {name: value for name, value in labels("real").items() if name != "error_type"}
    told = {**usage, "gen_ai_token_type": "output"}
    assert registry.get_sample_value("gen_ai_client_token_usage_count", told) == 1


def test_tokens_are_told_by_kind_and_unknown_ones_not_at_all() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.operated("ollama", "real", None, 0.1)
    metrics.spent("ollama", "real", Usage(prompt_tokens=7, completion_tokens=None))
    usage = {name: value for name, value in labels("real").items() if name != "error_type"}
    name = "gen_ai_client_token_usage_sum"
    assert registry.get_sample_value(name, {**usage, "gen_ai_token_type": "input"}) == 7
    assert registry.get_sample_value(name, {**usage, "gen_ai_token_type": "output"}) is None


def test_times_fall_into_the_first_bucket_that_holds_them() -> None:
    durations = Durations("a_seconds", "A.", ("b",), (0.1, 1.0))
    for seconds in (0.1, 0.5, 1.0, 7.0):
        durations.observe(("x",), seconds)
    samples = {(sample.name, sample.labels.get("le")): sample.value for sample in durations.family().samples}
    assert [samples["a_seconds_bucket", bound] for bound in ("0.1", "1.0", "+Inf")] == [1, 3, 4]
    assert samples["a_seconds_sum", None] == pytest.approx(8.6)
    assert dict(durations.counts()) == {("x",): 4}


@given(
    st.dictionaries(
        st.tuples(st.text('ab "\\\n', max_size=5), st.sampled_from(["a", 'b"\\\n'])),
        st.lists(st.floats(0, 1e6), min_size=1, max_size=3),
        max_size=3,
    )
)
def test_times_are_written_as_the_library_would(observed: dict[tuple[str, str], list[float]]) -> None:
    class Both(Collector):
        def collect(self) -> Iterator[Metric]:
            yield GaugeMetricFamily("a_gauge", "A gauge.", 1)
            yield by_label.family()
            yield by_nothing.family()

    by_label = Durations("times_seconds", "Times.", ("zone", "kind"))
    by_nothing = Durations("all_seconds", "All.", (), (0.5, 2.0))
    for labels, times in observed.items():
        for seconds in times:
            by_label.observe(labels, seconds)
            by_nothing.observe((), seconds)
    registry = CollectorRegistry()
    registry.register(Both())
    assert _parsed(render(registry)) == _parsed(generate_latest(registry))


def _by_labels(sample: Sample) -> tuple[str, list[tuple[str, str]]]:
    return sample.name, sorted(sample.labels.items())


def _parsed(text: bytes) -> dict[str, tuple[str, str, list[Sample]]]:
    return {
        family.name: (family.type, family.documentation, sorted(family.samples, key=_by_labels))
        for family in text_string_to_metric_families(text.decode())
    }


def test_without_the_extra_a_collector_cannot_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "services.otlp", None)
    settings = DaemonSettings(port=1, otlp_endpoint="http://127.0.0.1:4318")
    with pytest.raises(InvalidRequest, match=r"stillhouse\[tracing\]"):
        tracing.open_tracer("tests", settings, CollectorRegistry())


@pytest.fixture
def served(socket_enabled: None) -> Iterator[str]:
    assert socket_enabled is None

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

        def do_GET(self) -> None:
            body = b"x" * int(self.path[1:])
            self.send_response(503)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


async def test_a_daemon_is_read_whatever_its_status_but_not_without_end(
    served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.backends.probe.ANSWER_BYTES_MAX", 1000)
    prober = HttpProber(timeout_s=30.0, headers={})
    try:
        assert await prober.read(served, "/1000") == b"x" * 1000
        with pytest.raises(Unavailable, match="more than 1000 bytes"):
            await prober.read(served, "/1001")
        with pytest.raises(Unavailable, match="ConnectError"):
            await prober.read(f"http://127.0.0.1:{free_port()}", "/1")
    finally:
        await prober.close()
