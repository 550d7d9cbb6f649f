"""A gateway, a chatd and an embedd as processes: what a collector, Prometheus and the status get to see."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import httpx
import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from schemas.status import PlatformStatus, ReplicaStatus
from services.testing import free_port
from tests.processes import Running, running

pytestmark = pytest.mark.enable_socket

PATIENCE_S: Final = 30.0
THINKING_S: Final = 0.05
FROZEN_S: Final = 1.0
CLIENT_SPAN: Final = "b7ad6b7169203331"
SERVER, CLIENT = Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT

CHAT: Final = {"model": "ollama/talk", "messages": [{"role": "user", "content": "a secret"}]}
ANSWER: Final = {
    "model": "talk",
    "message": {"role": "assistant", "content": "hi"},
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 5,
    "eval_count": 3,
}
MODELS: Final = {"models": [{"name": "talk", "model": "talk", "digest": "d" * 64}]}
VECTOR: Final = [0.6, 0.8]


@dataclass
class Outside:
    """A server that is both the collector and the Ollama, and what it was sent."""

    url: str = ""
    spans: list[tuple[str, Span]] = field(default_factory=list)
    traceparents: list[str] = field(default_factory=list)

    def trace(self, trace_id: str, count: int) -> dict[tuple[str, int], Span]:
        """The spans of a trace, by daemon and kind, once there are that many."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = [(name, span) for name, span in self.spans if span.trace_id.hex() == trace_id]
            if len(found) >= count:
                break
            time.sleep(0.02)
        assert len(found) == count, [(name, span.name) for name, span in found]
        return {(name, span.kind): span for name, span in found}

    def trace_of(self, trace_id: str, daemons: set[str]) -> dict[str, Span]:
        """The server spans of a trace by daemon, once these daemons have sent theirs."""
        deadline = time.monotonic() + PATIENCE_S
        found: dict[str, Span] = {}
        while not daemons <= found.keys() and time.monotonic() < deadline:
            time.sleep(0.02)
            spans = [(name, span) for name, span in self.spans if span.trace_id.hex() == trace_id]
            found = {name: span for name, span in spans if span.kind == SERVER}
        assert found.keys() == daemons
        return found

    def answer(self, path: str, traceparent: str | None, body: bytes) -> bytes | None:
        """What is answered; None for a failure."""
        if path == "/v1/traces":
            for one in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {item.key: item.value.string_value for item in one.resource.attributes}
                for scope in one.scope_spans:
                    self.spans += [(names["service.name"], span) for span in scope.spans]
            return b""
        if path == "/api/embed":
            vectors = [VECTOR] * len(orjson.loads(body)["input"])
            return orjson.dumps({"model": "talk", "embeddings": vectors, "prompt_eval_count": len(vectors)})
        assert traceparent is not None
        self.traceparents.append(traceparent)
        if orjson.loads(body)["model"] == "broken":
            return None
        time.sleep(THINKING_S)
        return orjson.dumps(ANSWER) + b"\n"


@contextmanager
def outside(port: int = 0) -> Iterator[Outside]:
    seen = Outside()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

        def do_GET(self) -> None:
            self._answer(orjson.dumps(MODELS))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self._answer(seen.answer(self.path, self.headers["traceparent"], body))

        def _answer(self, answer: bytes | None) -> None:
            body = b"{}" if answer is None else answer
            self.send_response(200 if answer is not None else 500)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        seen.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Platform:
    outside: Outside
    client: httpx.Client
    gateway: Running
    chatd_url: str

    def metrics(self) -> dict[str, float]:
        """What the gateway publishes, by series."""
        lines = self.client.get("/metrics").text.splitlines()
        series = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in series}

    def overhead(self) -> tuple[float, float]:
        """Of requests to chatd: the sum in seconds, and how many."""
        values = self.metrics()
        total, count = (
            values.get(f'gateway_overhead_seconds_{kind}{{daemon="chatd"}}', 0.0) for kind in ("sum", "count")
        )
        return total, count

    def seconds(self, route: str) -> float:
        """That all requests of a route took together."""
        sums = "http_server_request_duration_seconds_sum"
        return sum(
            value for name, value in self.metrics().items() if name.startswith(sums) and f'"{route}"' in name
        )

    def post(self, path: str, body: Any, trace_id: str, flags: str = "01") -> httpx.Response:
        traceparent = f"00-{trace_id}-{CLIENT_SPAN}-{flags}"
        answer = self.client.post(path, json=body, headers={"traceparent": traceparent})
        assert answer.status_code == 200, answer.text
        return answer

    def status(self) -> dict[str, ReplicaStatus]:
        answer = self.client.get("/v1/status")
        assert answer.status_code == 200, answer.text
        status = PlatformStatus.model_validate_json(answer.content)
        return {daemon.name: daemon.replicas[0] for daemon in status.daemons}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    ports = {name: free_port() for name in ("chatd", "embedd")}
    with ExitStack() as stack:
        seen = stack.enter_context(outside())
        nobody = f"http://127.0.0.1:{free_port()}"
        env = {
            "STILLHOUSE_OTLP_ENDPOINT": seen.url,
            "NO_PROXY": "*",  # what sends spans goes by the environment's proxies
            "OLLAMA_HOST": seen.url,
            **{f"GATEWAY_{name}_URLS": nobody for name in ("VECTORD", "DISTILL", "VALIDATORS")},
            **{f"GATEWAY_{name.upper()}_URLS": f"http://127.0.0.1:{port}" for name, port in ports.items()},
        }
        chatd = stack.enter_context(running("chatd", folder, port=ports["chatd"], env=env))
        stack.enter_context(running("embedd", folder, port=ports["embedd"], env=env))
        gateway = stack.enter_context(running("gateway", folder, env=env))
        client = stack.enter_context(httpx.Client(base_url=gateway.url, timeout=PATIENCE_S, trust_env=False))
        yield Platform(seen, client, gateway, chatd.url)


def attributes(span: Span) -> dict[str, str | int]:
    return {
        item.key: item.value.string_value if item.value.HasField("string_value") else item.value.int_value
        for item in span.attributes
    }


@pytest.mark.parametrize("stream", [False, True])
def test_one_chat_is_one_trace_from_the_gateway_to_the_model(platform: Platform, stream: bool) -> None:
    kept_out, recorded = ("1" * 32, "2" * 32) if stream else ("a" * 32, "0af7651916cd43dd8448eb211c80319c")
    chat = {**CHAT, "stream": stream}
    platform.post("/v1/chat/completions", chat, kept_out, flags="00")
    platform.post("/v1/chat/completions", chat, recorded)
    trace = platform.outside.trace(recorded, 3)
    door, served, asked = trace["gateway", SERVER], trace["chatd", SERVER], trace["chatd", CLIENT]
    parents = [span.parent_span_id.hex() for span in (door, served, asked)]
    assert parents == [CLIENT_SPAN, door.span_id.hex(), served.span_id.hex()]
    told_out, told = platform.outside.traceparents[-2:]
    assert told == f"00-{recorded}-{asked.span_id.hex()}-01"
    assert (told_out[:36], told_out[-2:]) == (f"00-{kept_out}-", "00")
    assert kept_out not in {span.trace_id.hex() for _, span in platform.outside.spans}
    assert door.name == served.name == "POST /v1/chat/completions"
    assert asked.name == "chat talk"
    assert attributes(door)["http.response.status_code"] == 200
    assert attributes(door)["stillhouse.request_id"] == attributes(served)["stillhouse.request_id"]
    said = attributes(asked)
    assert (said["gen_ai.provider.name"], said["gen_ai.usage.output_tokens"]) == ("ollama", 3)
    for span in trace.values():
        assert span.start_time_unix_nano < span.end_time_unix_nano
        assert b"secret" not in span.SerializeToString()


def test_embeddings_are_traced_through_the_hop_computed_or_cached(platform: Platform) -> None:
    for trace_id, count in (("b" * 32, 3), ("c" * 32, 2)):  # the second is cached
        platform.post("/v1/embeddings", {"model": "talk", "input": "a text"}, trace_id)
        trace = platform.outside.trace(trace_id, count)
        door, served = trace["gateway", SERVER], trace["embedd", SERVER]
        assert door.parent_span_id.hex() == CLIENT_SPAN
        assert served.parent_span_id == door.span_id
        if count == 3:
            called = trace["embedd", CLIENT]
            assert called.parent_span_id == served.span_id
            assert (called.name, attributes(called)["gen_ai.provider.name"]) == ("embeddings talk", "ollama")
    # A frame holds the texts of several callers, so it has no trace of its own.
    assert all(span.parent_span_id for name, span in platform.outside.spans if name == "embedd")


def test_failures_are_traced_through_the_short_ways(platform: Platform) -> None:
    asked = {
        "8" * 32: ("/v1/embeddings", {"model": "nobody-has-it", "input": "a text"}, "embedd", 404),
        "9" * 32: ("/v1/chat/completions", {**CHAT, "model": "ollama/broken"}, "chatd", 502),
        "7" * 32: ("/v1/validate", {"kind": "fill", "artifact": {}}, None, 503),  # there are no validators
    }
    for trace_id, (path, body, daemon, status) in asked.items():
        headers = {"traceparent": f"00-{trace_id}-{CLIENT_SPAN}-03"}
        assert platform.client.post(path, json=body, headers=headers).status_code == status
        spans = platform.outside.trace_of(trace_id, {"gateway", *([daemon] if daemon else [])})
        for span in spans.values():
            said = attributes(span)
            assert said["http.response.status_code"] == status
            assert (span.status.code == Status.STATUS_CODE_ERROR) == (status >= 500)
            assert said.get("error.type") == (str(status) if status >= 500 else None)
    asked_models = [span for _, span in platform.outside.spans if span.name == "chat broken"]
    assert {span.status.code for span in asked_models} == {Status.STATUS_CODE_ERROR}


def test_the_status_tells_who_serves_and_how(platform: Platform) -> None:
    platform.status()
    time.sleep(1.1)  # an answer is given again for a second
    platform.post("/v1/chat/completions", CHAT, "d" * 32)
    status = platform.status()
    gateway, chatd, embedd = status["gateway"], status["chatd"], status["embedd"]
    assert [status[name].state for name in ("vectord", "distill", "validators")] == ["silent"] * 3
    assert chatd.latency is not None
    assert chatd.latency.p99_ms >= THINKING_S * 1000
    assert chatd.requests_per_s is not None
    assert chatd.requests_per_s > 0
    assert chatd.spool is not None
    assert chatd.spool.records >= 1, "distill is away"
    assert "distill" in chatd.missing
    assert embedd.cache is not None
    assert embedd.cache.bytes > 0
    assert gateway.overhead is not None
    assert gateway.event_loop_lag is not None
    assert gateway.uptime_s is not None
    assert gateway.memory_bytes


def test_model_calls_are_counted_by_opentelemetrys_names(platform: Platform) -> None:
    platform.post("/v1/chat/completions", CHAT, "e" * 32)
    missing = platform.client.post("/v1/chat/completions", json={**CHAT, "model": "nobody/a-made-up-model"})
    assert missing.status_code == 404
    text = httpx.get(f"{platform.chatd_url}/metrics", trust_env=False).text
    labels = 'gen_ai_operation_name="chat",gen_ai_provider_name="ollama",gen_ai_request_model="talk"'
    assert f'gen_ai_client_operation_duration_seconds_count{{error_type="",{labels}}}' in text
    assert f'gen_ai_client_token_usage_sum{{{labels},gen_ai_token_type="output"}}' in text
    assert "made-up" not in text


def test_overhead_leaves_out_what_the_model_takes(platform: Platform) -> None:
    platform.post("/v1/chat/completions", CHAT, "f" * 32)
    before_s, count_before = platform.overhead()
    started = time.perf_counter()
    for _ in range(3):
        platform.post("/v1/chat/completions", CHAT, "f" * 32)
    took_s = time.perf_counter() - started
    after_s, count_after = platform.overhead()
    assert count_after == count_before + 3
    assert 0 < after_s - before_s <= took_s - 3 * THINKING_S


def test_a_collector_that_is_gone_costs_its_spans_and_a_line(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    port = free_port()
    env = {"STILLHOUSE_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "NO_PROXY": "*"}
    with ExitStack() as stack:
        gateway = stack.enter_context(running("gateway", tmp_path_factory.mktemp("alone"), env=env))
        client = stack.enter_context(httpx.Client(base_url=gateway.url, timeout=PATIENCE_S, trust_env=False))

        def until(said: str) -> str:
            """Ask on, until it is said, and for a while after."""
            deadline = time.monotonic() + PATIENCE_S
            while said not in gateway.text():
                assert time.monotonic() < deadline, gateway.text()
                assert client.get("/nowhere").status_code == 404
                time.sleep(0.1)
            return gateway.text()

        log = until("the collector takes no spans")
        assert "refused" in log
        collector = stack.enter_context(outside(port))
        log = until("the collector takes spans again")
        assert collector.spans
        assert (log.count("takes no spans"), log.count("opentelemetry")) == (1, 0)
        lines = dict(line.split() for line in client.get("/metrics").text.splitlines() if "# " not in line)
        assert 0 < float(lines["trace_spans_sent_total"]) < float(lines["trace_spans_made_total"])
        assert gateway.stop() == 0


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the system does not tell when bytes came")
def test_overhead_holds_what_a_request_waits_before_it_is_read(platform: Platform) -> None:
    """A connection that was not even accepted, and one that was there: both wait for a busy process."""
    before_s = platform.overhead()[0]
    before = platform.seconds("/v1/chat/completions")
    platform.gateway.process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool, httpx.Client(base_url=platform.gateway.url, trust_env=False) as late:
        chats = [
            pool.submit(client.post, "/v1/chat/completions", json=CHAT, timeout=PATIENCE_S)
            for client in (platform.client, late)
        ]
        time.sleep(FROZEN_S)
        platform.gateway.process.send_signal(signal.SIGCONT)
        assert [chat.result().status_code for chat in chats] == [200, 200]
    least_s = FROZEN_S  # of twice that: who asks from a thread may begin late
    assert platform.overhead()[0] - before_s >= least_s
    assert platform.seconds("/v1/chat/completions") - before >= least_s
