"""Spans as a collector gets them: one chat through gateway and chatd to a model is one trace."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.testing import free_port
from tests.processes import running

pytestmark = pytest.mark.enable_socket

ANSWER = {
    "model": "talk",
    "message": {"role": "assistant", "content": "hi"},
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 5,
    "eval_count": 3,
}
MODELS = {"models": [{"name": "talk", "model": "talk", "digest": "d" * 64}]}


@dataclass
class Seen:
    """What the collector and the model were sent."""

    spans: list[tuple[str, Span]] = field(default_factory=list)
    traceparents: list[str] = field(default_factory=list)

    def one(self, daemon: str, kind: "Span.SpanKind.ValueType") -> Span:
        (found,) = [span for name, span in self.spans if name == daemon and span.kind == kind]
        return found


@contextmanager
def outside() -> Iterator[tuple[str, Seen]]:
    """A server that is both the collector and the Ollama."""
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

        def do_GET(self) -> None:
            self._answer(orjson.dumps(MODELS), "application/json")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path != "/v1/traces":
                seen.traceparents.append(self.headers["traceparent"])
                self._answer(orjson.dumps(ANSWER) + b"\n", "application/x-ndjson")
                return
            for one in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {item.key: item.value.string_value for item in one.resource.attributes}
                for scope in one.scope_spans:
                    seen.spans += [(names["service.name"], span) for span in scope.spans]
            self._answer(b"", "application/x-protobuf")

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join()


def attributes(span: Span) -> dict[str, str | int]:
    return {
        item.key: item.value.string_value if item.value.HasField("string_value") else item.value.int_value
        for item in span.attributes
    }


def test_one_chat_is_one_trace_from_the_gateway_to_the_model(tmp_path: Path) -> None:
    trace_id, client_span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    chatd_port = free_port()
    with outside() as (url, seen):
        env = {
            "STILLHOUSE_OTLP_ENDPOINT": url,
            "OLLAMA_HOST": url,
            "GATEWAY_CHATD_URLS": f"http://127.0.0.1:{chatd_port}",
        }
        with (
            running("chatd", tmp_path, port=chatd_port, env=env),
            running("gateway", tmp_path, env=env) as gateway,
            httpx.Client(base_url=gateway.url, timeout=30.0, trust_env=False) as client,
        ):
            chat = {"model": "ollama/talk", "messages": [{"role": "user", "content": "a secret"}]}
            for flags in ("01", "00"):  # the second is not to be recorded, says the caller
                answer = client.post(
                    "/v1/chat/completions",
                    json=chat,
                    headers={
                        "traceparent": f"00-{trace_id}-{client_span}-{flags}",
                        "x-request-id": f"r-{flags}",
                    },
                )
                assert answer.status_code == 200, answer.text
    door = seen.one("gateway", Span.SPAN_KIND_SERVER)
    served = seen.one("chatd", Span.SPAN_KIND_SERVER)
    asked = seen.one("chatd", Span.SPAN_KIND_CLIENT)
    assert len(seen.spans) == 3
    assert {span.trace_id.hex() for _, span in seen.spans} == {trace_id}
    parents = [span.parent_span_id.hex() for span in (door, served, asked)]
    assert parents == [client_span, door.span_id.hex(), served.span_id.hex()]
    assert seen.traceparents[0] == f"00-{trace_id}-{asked.span_id.hex()}-01"
    assert seen.traceparents[1].endswith("-00")
    assert all(span.start_time_unix_nano < span.end_time_unix_nano for _, span in seen.spans)
    assert door.name == served.name == "POST /v1/chat/completions"
    assert attributes(door)["http.response.status_code"] == 200
    assert attributes(door)["stillhouse.request_id"] == "r-01"
    told = attributes(asked)
    assert asked.name == "chat talk"
    assert (told["gen_ai.provider.name"], told["gen_ai.usage.output_tokens"]) == ("ollama", 3)
    assert b"secret" not in b"".join(span.SerializeToString() for _, span in seen.spans)


def test_a_collector_that_is_gone_holds_up_neither_answers_nor_the_end(tmp_path: Path) -> None:
    env = {"STILLHOUSE_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with running("gateway", tmp_path, env=env) as gateway:
        answer = httpx.get(f"{gateway.url}/nowhere", timeout=30.0, trust_env=False)
        assert answer.status_code == 404
        assert gateway.stop() == 0
