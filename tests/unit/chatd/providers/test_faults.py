"""What goes wrong with providers, and what it is to our caller: the same in JSON and in streams."""

import asyncio
import email.utils
import time
from collections.abc import Callable

import orjson
import pytest

from chatd.backends import Delta
from services.errors import PlatformError
from services.testing import free_port
from tests.stubs.chat.asking import answered, ask, gathered
from tests.stubs.chat.formats import FORMATS, SSE, Format, Said, provider, refusal, streamed, whole
from tests.stubs.chat.wire import Reply, cut_up, serving

pytestmark = pytest.mark.anyio

KINDS = sorted(FORMATS)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["json", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def head_of(form: Format, *, stream: bool) -> bytes:
    """The beginning of a good answer, that breaks off inside a line."""
    if stream:
        return b"".join(form.events(Said(["some text ", "and more"])))[:-40]
    return orjson.dumps(form.whole(Said(["some text"])))[:-10]


async def failing(kind: str, reply: Reply, *, stream: bool) -> PlatformError:
    async with serving(reply) as server:
        with pytest.raises(PlatformError) as caught:
            await answered(provider(kind, server.url, keys=["sk-abcdefghijklmnop"]), stream=stream)
    assert "sk-abcdefghijklmnop" not in caught.value.message
    return caught.value


async def test_connect_refused(kind: str, stream: bool) -> None:
    with pytest.raises(PlatformError) as caught:
        await answered(provider(kind, f"http://127.0.0.1:{free_port()}"), stream=stream)
    assert (caught.value.status, caught.value.code) == (503, f"{kind}_down")


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [
        (400, 400, "upstream_refused"),
        (401, 502, "upstream_credentials"),
        (402, 502, "upstream_credentials"),
        (403, 502, "upstream_credentials"),
        (404, 404, "model_not_found"),
        (408, 504, "upstream_timeout"),
        (413, 413, "body_too_large"),
        (422, 400, "upstream_refused"),
        (429, 429, "upstream_rate_limited"),
        (500, 502, "upstream_failed"),
        (502, 502, "upstream_failed"),
        (503, 503, None),
        (504, 504, "upstream_timeout"),
        (529, 503, None),
    ],
)
async def test_statuses(kind: str, stream: bool, status: int, expected: int, code: str | None) -> None:
    error = await failing(kind, refusal(FORMATS[kind], status, "key sk-abcdefghijklmnop no"), stream=stream)
    assert (error.status, error.code) == (expected, code or f"{kind}_busy")


@pytest.mark.parametrize("content", [b"", b"<html>Bad gateway</html>", b"[]", b'{"error":', b'{"oops":1}'])
async def test_refusals_without_a_reason_keep_their_status(kind: str, stream: bool, content: bytes) -> None:
    for status, expected in ((429, 429), (500, 502), (401, 502)):
        html = (("content-type", "text/html"), ("retry-after", "3"))
        error = await failing(kind, Reply([content], status, html), stream=stream)
        assert error.status == expected


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [
        ({"retry_after": "3"}, 3.0),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after": "121"}, 121.0),
        ({"retry_after": "999999"}, 3600.0),
        ({"retry_after_ms": "250"}, 0.25),
        ({"retry_after_ms": "1500", "retry_after": "60"}, 1.5),
        ({"retry_after": "soon"}, 1.0),
        ({"retry_after": "-5"}, 1.0),
        ({}, 1.0),
    ],
)
async def test_waits_are_understood_in_each_form(
    kind: str, stream: bool, said: dict[str, str], wait_s: float
) -> None:
    error = await failing(kind, refusal(FORMATS[kind], 429, "slow", **said), stream=stream)
    assert error.retry_after_s == wait_s


async def test_waits_until_a_date(kind: str, stream: bool) -> None:
    date = email.utils.formatdate(time.time() + 1000, usegmt=True)
    error = await failing(kind, refusal(FORMATS[kind], 529, "slow", retry_after=date), stream=stream)
    assert error.retry_after_s is not None
    assert 900 < error.retry_after_s <= 1001
    past = await failing(
        kind, refusal(FORMATS[kind], 429, "x", retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), stream=stream
    )
    assert past.retry_after_s == 0.0


BREAKS: dict[str, tuple[Callable[[Format, bool], Reply], str, str]] = {
    "reset before the head": (
        lambda _, __: Reply(end="reset", head=False),
        "upstream_broken",
        "upstream_broken",
    ),
    "closed before the head": (
        lambda _, __: Reply(end="close", head=False),
        "upstream_broken",
        "upstream_broken",
    ),
    "reset after the head": (lambda _, __: Reply([], end="reset"), "upstream_broken", "upstream_broken"),
    "reset in the middle": (
        lambda form, stream: Reply([head_of(form, stream=stream)], end="reset"),
        "upstream_broken",
        "upstream_broken",
    ),
    "half a line, then a clean end": (
        lambda form, stream: Reply([head_of(form, stream=stream)], end="chunked"),
        "upstream_invalid",
        "any",
    ),
    "half a line, then the end of the connection": (
        lambda form, stream: Reply([head_of(form, stream=stream)], end="close"),
        "upstream_invalid",
        "any",
    ),
    "nothing at all": (lambda _, __: Reply([], end="chunked"), "upstream_invalid", "truncated"),
    "malformed JSON": (
        lambda _, stream: Reply([b'data: {"a":\n\n' if stream else b'{"a":'], end="chunked"),
        "upstream_invalid",
        "upstream_invalid",
    ),
    "JSON that is no object": (
        lambda form, stream: Reply(
            [(b"" if form.type == "ollama" or not stream else b"data: ") + b"[1]\n\n"]
        ),
        "upstream_invalid",
        "upstream_invalid",
    ),
    "a page of HTML": (lambda _, __: Reply([b"<html>hello</html>"]), "upstream_invalid", "any"),
    "no HTTP": (lambda _, __: Reply([b"hello\r\n\r\n"], head=True, headers=(("x\x01", "y"),)), "any", "any"),
    "an unasked encoding": (
        lambda _, __: Reply([b"\x00\x01"], headers=(*SSE, ("content-encoding", "br"))),
        "upstream_invalid",
        "upstream_invalid",
    ),
    "gzip that is none": (
        lambda _, __: Reply([b"plain text"], headers=(*SSE, ("content-encoding", "gzip"))),
        "upstream_invalid",
        "upstream_invalid",
    ),
}


@pytest.mark.parametrize("fault", BREAKS)
async def test_what_breaks_is_the_provider_s_fault(kind: str, stream: bool, fault: str) -> None:
    reply, whole_code, stream_code = BREAKS[fault]
    error = await failing(kind, reply(FORMATS[kind], stream), stream=stream)
    assert error.status == 502
    expected = stream_code if stream else whole_code
    assert error.code in ("upstream_broken", "upstream_invalid", "truncated")
    assert expected in ("any", error.code)


async def test_gzip_is_read_though_it_was_not_asked_for(kind: str, stream: bool) -> None:
    said = Said(["héllo ", "wörld"])
    reply = streamed(FORMATS[kind], said) if stream else whole(FORMATS[kind], said)
    async with serving(reply.packed()) as server:
        done = await answered(provider(kind, server.url), stream=stream)
    assert done.content == "héllo wörld"
    assert server.asked[0].headers["accept-encoding"] == "identity"


async def test_gzip_that_breaks_off(kind: str, stream: bool) -> None:
    reply = streamed(FORMATS[kind], Said(["a" * 50])) if stream else whole(FORMATS[kind], Said(["a"]))
    packed = b"".join(reply.packed().pieces)
    cut = Reply([packed[: len(packed) // 2]], headers=reply.packed().headers, end="chunked")
    error = await failing(kind, cut, stream=stream)
    assert error.code == "upstream_broken"


async def test_an_error_inside_a_good_answer(kind: str, stream: bool) -> None:
    form = FORMATS[kind]
    content = (
        form.error_inside("the runner died") if stream else orjson.dumps(form.error(500, "the runner died"))
    )
    error = await failing(kind, Reply([content], headers=SSE), stream=stream)
    assert error.status == 502
    assert "the runner died" in error.message


async def test_an_error_in_the_middle_of_a_stream_ends_it(kind: str) -> None:
    form = FORMATS[kind]
    content = b"".join(form.events(Said(list("abcdef")))[:5]) + form.error_inside("boom")
    seen: list[Delta] = []

    async def read(url: str) -> None:
        async for delta in provider(kind, url).stream(ask()):
            seen.append(delta)  # noqa: PERF401 - kept also when the stream breaks

    async with serving(Reply(cut_up(content), headers=SSE, end="chunked")) as server:
        with pytest.raises(PlatformError, match="boom"):
            await read(server.url)
    assert "".join(delta.content for delta in seen)
    assert not any(delta.finish_reason for delta in seen)


async def test_a_stream_that_ends_before_its_end_is_cut(kind: str) -> None:
    """The connection ends cleanly between two lines."""
    form = FORMATS[kind]
    events = form.events(Said(["a", "b", "c"]))
    endings = {"ollama": 1, "openai": 3, "openrouter": 3, "anthropic": 1, "gemini": 1}
    for end in ("chunked", "close"):
        content = b"".join(events[: -endings[kind]])
        async with serving(Reply([content], headers=SSE, end=end)) as server:
            with pytest.raises(PlatformError) as caught:
                await gathered(provider(kind, server.url))
        assert caught.value.code == "truncated"


async def test_a_good_answer_may_end_with_its_connection(kind: str, stream: bool) -> None:
    said = Said(["fine"])
    reply = streamed(FORMATS[kind], said) if stream else whole(FORMATS[kind], said)
    closing = Reply(reply.pieces, headers=reply.headers, end="close")
    async with serving(closing) as server:
        assert (await answered(provider(kind, server.url), stream=stream)).content == "fine"


async def test_a_stall_is_left_to_the_dispatcher_s_clocks(kind: str, stream: bool) -> None:
    """Before the head, or after the first piece: the wait can be cut short, and then nothing is left."""
    form = FORMATS[kind]
    first = b"".join(form.events(Said(list("abcdef")))[:3])
    for reply in (Reply(end="hang", head=False), Reply([first], headers=SSE, end="hang")):
        async with serving(reply) as server:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await answered(provider(kind, server.url), stream=stream)
            await server.until(0)


async def test_slow_bytes_are_put_together(kind: str, stream: bool) -> None:
    said = Said(["é"])
    reply = streamed(FORMATS[kind], said, 1) if stream else whole(FORMATS[kind], said)
    pieces = cut_up(b"".join(reply.pieces), 1)
    slow = Reply(pieces, headers=reply.headers, end="chunked", pause_s=0.00001)
    async with serving(slow) as server:
        assert (await answered(provider(kind, server.url), stream=stream)).content == "é"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("This model's maximum context length is 4096 tokens", "context_length_exceeded"),
        ("prompt is too long: 210000 tokens > 200000 maximum", "context_length_exceeded"),
        (
            "The input token count (9) exceeds the maximum number of tokens allowed (8).",
            "context_length_exceeded",
        ),
        ("the prompt exceeds the context length", "context_length_exceeded"),
        ("the request exceeds the available context size, try increasing it", "context_length_exceeded"),
        ("something else is wrong", "upstream_refused"),
    ],
)
async def test_prompts_that_are_too_long(kind: str, stream: bool, message: str, code: str) -> None:
    error = await failing(kind, refusal(FORMATS[kind], 400, message), stream=stream)
    assert (error.status, error.code) == (400, code)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 X\r\ncontent-length: 0\r\n\r\n"])
async def test_a_server_without_tls_where_tls_is_wanted(stream: bool, said: bytes) -> None:
    """It hangs up, or answers in plain words: nothing was sent either way."""

    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.transport.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(PlatformError) as caught:
            await answered(provider("anthropic", f"https://127.0.0.1:{port}"), stream=stream)
    finally:
        server.close()
        await server.wait_closed()
    assert (caught.value.status, caught.value.code) == (503, "anthropic_down")


async def test_a_server_that_never_finishes_the_handshake(stream: bool) -> None:
    never = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await never.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(PlatformError) as caught:
            await answered(
                provider("gemini", f"https://127.0.0.1:{port}", extra="timeouts = { connect_s = 0.05 }\n"),
                stream=stream,
            )
    finally:
        never.set()
        server.close()
        await server.wait_closed()
    assert caught.value.code == "gemini_down"
