"""Any API that speaks OpenAI's chat completions: read liberally, as such servers differ."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import httpx
import orjson

from chatd.backends.provider import (
    Completion,
    Delta,
    ModelInfo,
    ToolCallDelta,
    call_id,
    count_in,
    finish_reason,
    lines,
    parse_object,
    read_bounded,
    text_in,
    truncated,
    upstream_failure,
)
from schemas.base import JsonObject
from schemas.chat import ChatRequest, FunctionCall, ToolCall
from schemas.runs import Usage
from services.context import PRINCIPAL_HEADER, ROLES_HEADER
from services.errors import InvalidRequest, PlatformError, UpstreamError
from services.http import PeerClient

JSON_HEADERS: Final = {"content-type": "application/json"}
DONE: Final = b"[DONE]"


class OutsideTransport(httpx.AsyncHTTPTransport):
    """Takes our requests outside, without telling the outside who asks."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for header in (PRINCIPAL_HEADER, ROLES_HEADER):
            request.headers.pop(header, None)
        return await super().handle_async_request(request)


class OpenAICompatibleProvider:
    """Speaks `/chat/completions` and `/models` below a base URL."""

    def __init__(self, name: str, peer: PeerClient, *, line_bytes_max: int, answer_bytes_max: int) -> None:
        self._name = name
        self._peer = peer
        self._line_bytes_max = line_bytes_max
        self._answer_bytes_max = answer_bytes_max

    @property
    def name(self) -> str:
        return self._name

    @property
    def config(self) -> JsonObject:
        return {
            "provider": self.name,
            "api": "openai",
            "base_url": str(httpx.URL(self._peer.base_url).copy_with(userinfo=b"")),
        }

    async def complete(self, request: ChatRequest) -> Completion:
        async with self._send(self._body(request, stream=False)) as response:
            return self._completion(await self._whole(response))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        async with self._send(self._body(request, stream=True)) as response:
            if not response.is_success:
                await self._whole(response)
            reading = _Reading(self.name)
            incoming = self._events(response)
            async with aclosing(incoming):
                async for event in incoming:
                    if event.startswith(DONE):
                        reading.done = True
                        break
                    if (delta := reading.read(self._checked(parse_object(self.name, event)))) is not None:
                        yield delta
        yield reading.end()

    async def models(self) -> list[ModelInfo]:
        response = await self._peer.send("GET", "/models")
        answer = self._parse(response.content, response)
        listed = answer.get("data")
        return [
            ModelInfo(str(item["id"]), created if isinstance(created := item.get("created"), int) else 0)
            for item in (listed if isinstance(listed, list) else ())
            if isinstance(item, dict) and "id" in item
        ]

    async def digest(self, model: str) -> str | None:  # noqa: ARG002 - this API has no digests
        return None

    def _send(self, body: bytes) -> Any:
        # The caller's clocks decide how long a model may think, so no read timeout here.
        timeout = httpx.Timeout(None, connect=self._peer.timeouts.connect_s)
        return self._peer.stream(
            "POST", "/chat/completions", headers=JSON_HEADERS, content=body, timeout=timeout
        )

    def _body(self, request: ChatRequest, *, stream: bool) -> bytes:
        if request.n is not None and request.n > 1:
            raise InvalidRequest(
                f"`n` is {request.n}; one choice a call is supported",
                code="unsupported_parameter",
                param="n",
            )
        if request.logprobs or request.top_logprobs:
            raise InvalidRequest(
                "`logprobs` is not supported", code="unsupported_parameter", param="logprobs"
            )
        body = request.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude_none=True, exclude={"stream_options"}
        )
        body["stream"] = stream
        if stream:
            body["stream_options"] = {"include_usage": True}  # we meter every stream, asked or not
        return orjson.dumps(body)

    # --- what comes back --------------------------------------------------------------------

    async def _whole(self, response: httpx.Response) -> JsonObject:
        return self._parse(await read_bounded(self.name, response, self._answer_bytes_max), response)

    def _parse(self, body: bytes, response: httpx.Response) -> JsonObject:
        if not response.is_success and not body.lstrip().startswith(b"{"):
            raise UpstreamError(f"{self.name} answered {response.status_code} with no JSON body")
        answer = parse_object(self.name, body)
        if response.is_success:
            return self._checked(answer)
        raise self._failure(response.status_code, answer.get("error"), response.headers)

    def _checked(self, answer: JsonObject) -> JsonObject:
        if error := answer.get("error"):  # some send it with a 200
            raise self._failure(502, error, {})
        return answer

    def _failure(self, status: int, error: Any, headers: Any) -> PlatformError:
        said = error if isinstance(error, dict) else {"message": error}
        reason = str(said.get("message") or "no reason given")
        failure = upstream_failure(self.name, status, reason, headers, param=_text_or_none(said.get("param")))
        if said.get("code") == "context_length_exceeded":
            failure.code = "context_length_exceeded"
        return failure

    def _completion(self, answer: JsonObject) -> Completion:
        choice = _first_choice(answer)
        said = choice.get("message") if choice else None
        if choice is None or not isinstance(said, dict):
            raise UpstreamError(f"{self.name} answered without a choice", code="upstream_invalid")
        calls = tuple(_tool_call(call) for call in said.get("tool_calls") or ())
        return Completion(
            content=text_in(self.name, said.get("content")) or None,
            finish_reason=finish_reason(choice.get("finish_reason"), with_tool_calls=bool(calls)),
            usage=_usage(answer) or Usage(),
            tool_calls=calls,
            reasoning=_reasoning(self.name, said) or None,
            refusal=text_in(self.name, said.get("refusal")) or None,
        )

    async def _events(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """The data of each server-sent event. Fields other than `data` are skipped."""
        incoming = lines(
            self.name, response, line_bytes_max=self._line_bytes_max, bytes_max=self._answer_bytes_max
        )
        data: list[bytes] = []
        async with aclosing(incoming):
            async for raw in incoming:
                line = raw.removesuffix(b"\r")
                if line.startswith(b"data:"):
                    data.append(line[5:].removeprefix(b" "))
                elif not line and any(data):
                    yield b"\n".join(data)
                    data = []
        if any(data):
            yield b"\n".join(data)


class _Reading:
    """One stream as it is read: what has finished it, and which tool calls have been seen."""

    def __init__(self, provider: str) -> None:
        self.done = False
        self._provider = provider
        self._finish: object = None
        self._usage: Usage | None = None
        self._calls: dict[int, str] = {}

    def read(self, chunk: JsonObject) -> Delta | None:
        """What a chunk adds. Finish and usage are kept back for the end, as they come in either order."""
        self._usage = _usage(chunk) or self._usage
        choice = _first_choice(chunk)
        if choice is None:
            return None
        self._finish = choice.get("finish_reason") or self._finish
        said = choice.get("delta")
        if not isinstance(said, dict):
            return None
        delta = Delta(
            content=text_in(self._provider, said.get("content")),
            reasoning=_reasoning(self._provider, said),
            tool_calls=tuple(self._piece(call) for call in said.get("tool_calls") or ()),
        )
        return delta if delta.has_content else None

    def _piece(self, call: Any) -> ToolCallDelta:
        function = (call.get("function") or {}) if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise UpstreamError(f"{self._provider} sent a malformed tool call", code="upstream_invalid")
        index = call.get("index")
        index = index if isinstance(index, int) else max(len(self._calls) - 1, 0)
        arguments = str(function.get("arguments") or "")
        if index in self._calls:
            return ToolCallDelta(index, arguments)
        self._calls[index] = call_id(_text_or_none(call.get("id")))
        return ToolCallDelta(index, arguments, id=self._calls[index], name=str(function.get("name") or ""))

    def end(self) -> Delta:
        """The last delta. A stream that just stops, with neither a reason nor `[DONE]`, was cut."""
        if self._finish is None and not self.done:
            raise truncated(self._provider)
        reason = finish_reason(self._finish, with_tool_calls=bool(self._calls))
        return Delta(finish_reason=reason, usage=self._usage or Usage())


def _first_choice(answer: JsonObject) -> dict[str, Any] | None:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return None
    return choices[0]


def _usage(answer: JsonObject) -> Usage | None:
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return None
    return Usage(
        prompt_tokens=count_in(usage.get("prompt_tokens")),
        completion_tokens=count_in(usage.get("completion_tokens")),
    )


def _reasoning(provider: str, said: dict[str, Any]) -> str:
    """Thinking, under either of the two names that servers give it."""
    return text_in(provider, said.get("reasoning") or said.get("reasoning_content"))


def _tool_call(call: Any) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise UpstreamError("the provider sent a tool call without a function", code="upstream_invalid")
    return ToolCall(
        id=call_id(_text_or_none(call.get("id"))),
        function=FunctionCall(
            name=str(function.get("name") or ""), arguments=str(function.get("arguments") or "")
        ),
    )


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
