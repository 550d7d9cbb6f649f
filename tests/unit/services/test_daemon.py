"""The frame around every daemon: ids, errors, limits, health, metrics, drain."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, Literal, Self

import httpx
import pytest
import structlog
from pydantic import Field, model_validator
from starlette.types import Message

from schemas.base import Model, SafeJson
from schemas.errors import ErrorEnvelope
from services import context, daemon, middleware
from services.daemon import Daemon
from services.drain import LINGER_S
from services.errors import Conflict, Overloaded, Unavailable
from services.health import Check
from services.settings import DaemonSettings
from services.telemetry import CollectorRegistry, configure_logging
from services.testing import client_for

pytestmark = pytest.mark.anyio


class Settings(DaemonSettings):
    model_config = {"env_prefix": "TINYD_"}  # noqa: RUF012 - pydantic's own convention
    port: int = 3999
    body_bytes_max: int = Field(1024, ge=1)


class Circle(Model):
    shape: Literal["circle"]
    circle: int


class Square(Model):
    shape: Literal["square"]
    square: int


class Body(Model):
    size: int
    extra: SafeJson = None
    id: Annotated[str, Field(min_length=1)] | Annotated[int, Field(ge=0)] = 0
    form: Annotated[Circle | Square, Field(discriminator="shape")] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.size == 13:
            raise ValueError("`size` and `extra` do not go together")
        return self


def tiny(*, trusted: bool = True, checks: dict[str, Check] | None = None) -> Daemon:
    routes = daemon.router()

    @routes.post("/work")
    async def work(body: Body) -> dict[str, int]:
        return {"size": body.size}

    @routes.get("/whoami")
    async def whoami() -> dict[str, Any]:
        current = context.current()
        assert current is not None
        return {"principal": current.principal, "roles": current.roles, "trace": current.traceparent}

    @routes.put("/things/{name}", status_code=204)
    async def put_thing(name: str) -> None: ...

    @routes.get("/things/{name}")
    async def get_thing(name: str) -> dict[str, str]:
        return {"name": name}

    @routes.get("/fails/{kind}")
    async def fails(kind: str) -> None:
        failures: dict[str, Exception] = {
            "conflict": Conflict("it is there already", param="name"),
            "busy": Overloaded("512 wait; at most 512 may", retry_after_s=2.4),
            "crash": RuntimeError("a secret detail: sk-abcdefghijklmnop"),
        }
        raise failures[kind]

    @asynccontextmanager
    async def lifespan(_: Daemon) -> AsyncIterator[dict[str, Any]]:
        yield {"checks": checks or {}}

    return daemon.build("tinyd", routes, lifespan, Settings(), registry=CollectorRegistry(), trusted=trusted)


def error_of(response: httpx.Response) -> Any:
    envelope = ErrorEnvelope.model_validate_json(response.content)
    assert envelope.error.request_id == response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    return envelope.error


async def test_the_request_id_is_kept_and_answered() -> None:
    async with client_for(tiny()) as client:
        response = await client.get("/whoami", headers={"x-request-id": "job-7.a_b"})
        assert response.headers["x-request-id"] == "job-7.a_b"
        response = await client.get("/whoami", headers={"x-request-id": "bad id"})
        assert response.headers["x-request-id"] not in ("bad id", "")


@pytest.mark.parametrize(
    ("content", "status", "code", "param"),
    [
        (b"{", 400, "invalid_json", None),
        (b'{"size": NaN}', 400, "invalid_json", None),
        (b'{"size": Infinity}', 400, "invalid_json", None),
        (b'{"size": 1, "extra": "\xff"}', 400, "invalid_json", None),
        (b'{"size": 1, "extra": ' + b"[" * 400 + b"]" * 400 + b"}", 400, "too_deep", "extra" + ".0" * 15),
        (b'{"size": 1, "extra": 9007199254740993}', 400, "invalid_request", "extra"),
        (b'{"size": 1, "extra": 123456789012345678901234567890}', 400, "invalid_request", "extra"),
        (b"[]", 400, "invalid_request", None),
        (b"{}", 400, "invalid_request", "size"),
        (b'{"size": "many"}', 400, "invalid_request", "size"),
        (b'{"size": 1, "colour": 2}', 400, "unknown_field", "colour"),
        (b'{"size": 1, "id": ""}', 400, "invalid_request", "id"),
        (b'{"size": 1, "form": {"shape": "circle"}}', 400, "invalid_request", "form.circle"),
        (b'{"size": 1, "extra": "' + b"x" * 1024 + b'"}', 413, "body_too_large", None),
    ],
)
async def test_a_bad_body_is_refused_by_name(
    content: bytes, status: int, code: str, param: str | None
) -> None:
    async with client_for(tiny()) as client:
        response = await client.post("/work", content=content, headers={"content-type": "application/json"})
    error = error_of(response)
    assert (response.status_code, error.code, error.param) == (status, code, param)
    assert error.type == "invalid_request_error"


async def test_no_body_is_told_apart_from_a_bad_one() -> None:
    async with client_for(tiny()) as client:
        response = await client.post("/work", headers={"content-type": "application/json"})
    assert (response.status_code, error_of(response).param) == (400, None)
    assert error_of(response).message.endswith("it is empty")


async def test_a_rule_on_several_fields_is_told_in_its_own_words() -> None:
    async with client_for(tiny()) as client:
        response = await client.post("/work", json={"size": 13})
    error = error_of(response)
    assert (response.status_code, error.param) == (400, None)
    assert error.message == "`size` and `extra` do not go together"


async def test_a_body_of_unknown_length_is_cut_off_at_the_limit() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    async with client_for(tiny()) as client:
        response = await client.post("/work", content=endless(), headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert error_of(response).code == "body_too_large"


async def test_unknown_routes_and_wrong_methods() -> None:
    async with client_for(tiny()) as client:
        missing = await client.get("/nowhere")
        wrong = await client.get("/work")
    assert (missing.status_code, error_of(missing).type) == (404, "not_found_error")
    assert (wrong.status_code, error_of(wrong).code) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


async def test_a_wrong_method_is_told_all_the_right_ones() -> None:
    async with client_for(tiny()) as client:
        wrong = await client.delete("/things/a")
        metrics = await client.post("/metrics")
        openapi = await client.post("/openapi.json")
    assert wrong.headers["allow"] == "GET, HEAD, PUT"
    assert "GET, HEAD, PUT" in error_of(wrong).message
    assert metrics.headers["allow"] == openapi.headers["allow"] == "GET, HEAD"


async def test_head_is_get_without_its_body() -> None:
    async with client_for(tiny()) as client:
        whole, head = await client.get("/things/a"), await client.head("/things/a")
        failed = await client.head("/fails/conflict")
        lacking, unknown = await client.head("/work"), await client.head("/nowhere")
        counted = (await client.get("/metrics")).text
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    assert (failed.status_code, lacking.status_code, unknown.status_code) == (409, 405, 404)
    assert not failed.content + lacking.content + unknown.content
    assert 'method="HEAD"' in counted
    assert 'route="/things/{name}"' in counted


async def test_a_slash_too_many_is_another_path() -> None:
    async with client_for(tiny()) as client:
        response = await client.get("/whoami/")
    assert (response.status_code, error_of(response).code) == (404, "unknown_route")


async def test_an_expected_failure_speaks_for_itself() -> None:
    async with client_for(tiny()) as client:
        conflict = await client.get("/fails/conflict")
        busy = await client.get("/fails/busy")
    assert (conflict.status_code, error_of(conflict).param) == (409, "name")
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "3")


async def test_a_crash_tells_the_caller_nothing() -> None:
    async with client_for(tiny()) as client:
        response = await client.get("/fails/crash")
    assert response.status_code == 500
    assert error_of(response).type == "internal_error"
    assert "secret" not in response.text


async def test_identity_is_believed_from_our_own_daemons_only() -> None:
    claim = {"x-stillhouse-principal": "ops", "x-stillhouse-roles": "welder,cook"}
    async with client_for(tiny()) as client:
        answer = (await client.get("/whoami", headers=claim)).json()
        assert (answer["principal"], answer["roles"]) == ("ops", ["welder", "cook"])
        assert (await client.get("/whoami", headers={"x-stillhouse-roles": ""})).json()["roles"] == []
    async with client_for(tiny(trusted=False)) as client:
        answer = (await client.get("/whoami", headers=claim)).json()
        assert (answer["principal"], answer["roles"]) == (None, None)


async def test_readiness_names_what_is_missing() -> None:
    async def there() -> None:
        return

    async def missing() -> None:
        raise Unavailable("the cellar is flooded")

    async def ready(checks: dict[str, Check]) -> tuple[int, Any]:
        async with client_for(tiny(checks=checks)) as client:
            assert (await client.get("/healthz")).status_code == 200
            response = await client.get("/readyz")
            return response.status_code, response.json()

    assert await ready({"a": Check(there)}) == (
        200,
        {"status": "ready", "dependencies": {"a": {"ok": True, "required": True}}},
    )
    status, body = await ready({"a": Check(there), "b": Check(missing, required=False)})
    assert (status, body["status"]) == (200, "degraded")
    status, body = await ready({"b": Check(missing)})
    assert (status, body["status"]) == (503, "unavailable")
    assert body["dependencies"]["b"]["reason"] == "the cellar is flooded"


async def test_while_draining_new_requests_get_503_and_health_still_answers() -> None:
    app = tiny()
    async with client_for(app) as client:
        app.drain.begin()
        response = await client.post("/work", json={"size": 1})
        assert response.status_code == 503
        assert error_of(response).code == "draining"
        assert response.headers["connection"] == "close"
        assert response.headers["x-stillhouse-draining"] == "1"
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        assert not app.drain.finished, "callers have to learn of it"
        await asyncio.sleep(LINGER_S)
    assert app.drain.finished


async def test_who_is_turned_away_is_heard_out_first() -> None:
    """To close before their body came would reset the connection, and the answer be lost."""
    app = tiny()
    order: list[str] = []

    async def receive() -> Message:
        order.append("body")
        return {"type": "http.request", "body": b"x", "more_body": len(order) < 3}

    async def send(message: Message) -> None:
        order.append(message["type"])

    app.drain.begin()
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/work",
        "raw_path": b"/work",
        "query_string": b"",
        "headers": [(b"host", b"x"), (b"content-length", b"3")],
        "state": {},
    }
    await app(scope, receive, send)
    assert order == ["body", "body", "body", "http.response.start", "http.response.body"]


async def test_metrics_count_by_template_so_that_paths_cannot_flood_them() -> None:
    async with client_for(tiny()) as client:
        for number in range(20):
            await client.get(f"/random/{number}")
            await client.request(f"M{number}", "/work")
        await client.get("/fails/conflict")
        text = (await client.get("/metrics")).text
    series = [line for line in text.splitlines() if line.startswith("http_requests_total")]
    assert 'http_requests_total{method="GET",route="/fails/{kind}",status="409"} 1.0' in series
    assert 'http_requests_total{method="GET",route="unmatched",status="404"} 20.0' in series
    assert len(series) == 3


@contextmanager
def real_logging() -> Iterator[None]:
    """Logging as in a process. Loggers remember what they write to: these are the block's own."""
    root = logging.getLogger()
    before, handlers = structlog.get_config(), root.handlers[:]
    with pytest.MonkeyPatch.context() as patched:
        for module in (daemon, middleware):
            patched.setattr(module, "log", structlog.get_logger(module.__name__))
        configure_logging("tinyd", "info")
        try:
            yield
        finally:
            structlog.configure(**before)
            root.handlers[:] = handlers


async def test_logs_carry_ids_and_neither_bodies_nor_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    with real_logging():
        async with client_for(tiny()) as client:
            await client.get("/fails/crash?key=sh-0123456789abcdef", headers={"x-request-id": "req-1"})
            await client.post("/work", json={"size": "confidential"})
    out = capsys.readouterr().out
    assert '"request_id":"req-1"' in out
    assert "RuntimeError" in out
    for secret in ("sk-abcdefghijklmnop", "sh-0123456789abcdef", "confidential"):
        assert secret not in out
