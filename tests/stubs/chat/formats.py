"""The wire formats of providers: how each says the same things, as their own servers do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import orjson

from chatd.backends import Bounds, Provider
from chatd.engine.config import parse
from chatd.engine.config.build import Builder
from chatd.engine.config.secrets import Secrets
from tests.stubs.chat.wire import Reply, cut_up

SSE = (("content-type", "text/event-stream; charset=utf-8"),)


@dataclass(frozen=True)
class Said:
    """An answer of a model, whatever its format. `calls` are names and arguments."""

    texts: Sequence[str] = ()
    thoughts: Sequence[str] = ()
    calls: Sequence[tuple[str, dict[str, Any]]] = ()
    finish: str = "stop"
    prompt: int = 5
    completion: int = 3


class Format(Protocol):
    """`finishes` are its words for ours. `target` is where it is asked, `key_header` how a key is sent."""

    type: ClassVar[str]
    key_header: ClassVar[str]
    finishes: ClassVar[dict[str, str]]

    def target(self, *, stream: bool) -> str: ...

    def whole(self, said: Said) -> dict[str, Any]: ...

    def events(self, said: Said) -> list[bytes]: ...

    def error(self, status: int, message: str) -> dict[str, Any]: ...

    def error_inside(self, message: str) -> bytes:
        """An error in the middle of a stream."""
        ...


def provider(
    kind: str, url: str, *, keys: Sequence[str] = (), extra: str = "", bounds: Bounds | None = None
) -> Provider:
    """An adapter as the configuration makes it, with the name of its kind."""
    variables = {f"KEY_{index}": key for index, key in enumerate(keys)}
    named = f"key_env = {list(variables)}\n".replace("'", '"') if keys else ""
    text = f'[providers.{kind}]\ntype = "{kind}"\nbase_url = "{url}"\n{named}{extra}'
    secrets = Secrets(variables.get, Path())
    spec = parse(text, secrets).providers[kind]
    return Builder(bounds or Bounds(), url)(kind, spec, secrets.of(spec))


def whole(form: Format, said: Said) -> Reply:
    return Reply([orjson.dumps(form.whole(said))])


def streamed(form: Format, said: Said, size: int = 7) -> Reply:
    return Reply(cut_up(b"".join(form.events(said)), size), headers=SSE, end="chunked")


def refusal(form: Format, status: int, message: str = "no", **headers: str) -> Reply:
    said = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Reply(
        [orjson.dumps(form.error(status, message))], status, (("content-type", "application/json"), *said)
    )


def sse(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else orjson.dumps(data)) + b"\n\n"


class OllamaFormat:
    type: ClassVar[str] = "ollama"
    key_header: ClassVar[str] = "authorization"
    finishes: ClassVar[dict[str, str]] = {"stop": "stop", "length": "length", "tool_calls": "stop"}

    def target(self, *, stream: bool) -> str:  # noqa: ARG002 - the same for both
        return "/api/chat"

    def whole(self, said: Said) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(said.texts)}
        if said.thoughts:
            message["thinking"] = "".join(said.thoughts)
        if said.calls:
            message["tool_calls"] = [self._call(*call) for call in said.calls]
        return {"model": "m", "message": message, **self._end(said)}

    def _end(self, said: Said) -> dict[str, Any]:
        return {
            "done": True,
            "done_reason": self.finishes[said.finish],
            "prompt_eval_count": said.prompt,
            "eval_count": said.completion,
            "total_duration": 10,
        }

    def _call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"function": {"index": 0, "name": name, "arguments": arguments}}

    def events(self, said: Said) -> list[bytes]:
        messages: list[dict[str, Any]] = [{"content": "", "thinking": text} for text in said.thoughts]
        messages += [{"content": text} for text in said.texts]
        messages += [{"content": "", "tool_calls": [self._call(*call)]} for call in said.calls]
        lines = [{"message": {"role": "assistant", **one}, "done": False} for one in messages]
        end = {"message": {"role": "assistant", "content": ""}, **self._end(said)}
        return [orjson.dumps(line) + b"\n" for line in [*lines, end]]

    def error(self, status: int, message: str) -> dict[str, Any]:  # noqa: ARG002 - it says no more
        return {"error": message}

    def error_inside(self, message: str) -> bytes:
        return orjson.dumps({"error": message}) + b"\n"


class OpenAIFormat:
    type: ClassVar[str] = "openai"
    key_header: ClassVar[str] = "authorization"
    finishes: ClassVar[dict[str, str]] = {
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "content_filter": "content_filter",
    }

    def target(self, *, stream: bool) -> str:  # noqa: ARG002 - the same for both
        return "/chat/completions"

    def whole(self, said: Said) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(said.texts) or None,
            "refusal": None,
        }
        if said.thoughts:
            message[self.thoughts] = "".join(said.thoughts)
        if said.calls:
            message["tool_calls"] = [
                {"id": f"call_{index}", "type": "function", "function": self._function(*call)}
                for index, call in enumerate(said.calls)
            ]
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": self.finishes[said.finish],
            "logprobs": None,
        }
        return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": self._usage(said)}

    thoughts = "reasoning_content"

    def _function(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, "arguments": orjson.dumps(arguments).decode()}

    def _usage(self, said: Said) -> dict[str, Any]:
        total = said.prompt + said.completion
        return {"prompt_tokens": said.prompt, "completion_tokens": said.completion, "total_tokens": total}

    def events(self, said: Said) -> list[bytes]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{self.thoughts: text} for text in said.thoughts]
        deltas += [{"content": text} for text in said.texts]
        for index, (name, arguments) in enumerate(said.calls):
            text = orjson.dumps(arguments).decode()
            first = {"index": index, "id": f"call_{index}", "type": "function"}
            deltas.append({"tool_calls": [{**first, "function": {"name": name, "arguments": ""}}]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
                for piece in (text[:3], text[3:])
            ]
        chunks = [{"choices": [{"index": 0, "delta": one, "finish_reason": None}]} for one in deltas]
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": self.finishes[said.finish]}]}
        usage = {"choices": [], "usage": self._usage(said)}
        return [b": keep-alive\n\n", *(sse(chunk) for chunk in [*chunks, end, usage]), sse(b"[DONE]")]

    def error(self, status: int, message: str) -> dict[str, Any]:
        kind = "invalid_request_error" if status < 500 else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def error_inside(self, message: str) -> bytes:
        return sse({"error": {"message": message, "type": "server_error"}})


class OpenRouterFormat(OpenAIFormat):
    type: ClassVar[str] = "openrouter"
    thoughts = "reasoning"

    def _usage(self, said: Said) -> dict[str, Any]:
        return {**super()._usage(said), "cost": 0.00014}

    def error(self, status: int, message: str) -> dict[str, Any]:
        return {"error": {"code": status, "message": message}}

    def error_inside(self, message: str) -> bytes:
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
        return sse({"error": {"code": 502, "message": message}, "choices": [choice]})


class AnthropicFormat:
    type: ClassVar[str] = "anthropic"
    key_header: ClassVar[str] = "x-api-key"
    finishes: ClassVar[dict[str, str]] = {
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
        "content_filter": "refusal",
    }

    def target(self, *, stream: bool) -> str:  # noqa: ARG002 - the same for both
        return "/v1/messages"

    def whole(self, said: Said) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if said.thoughts:
            content.append({"type": "thinking", "thinking": "".join(said.thoughts), "signature": "s"})
        if said.texts:
            content.append({"type": "text", "text": "".join(said.texts)})
        content += [
            {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": arguments}
            for index, (name, arguments) in enumerate(said.calls)
        ]
        usage = {"input_tokens": said.prompt, "output_tokens": said.completion}
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "content": content,
            "stop_reason": self.finishes[said.finish],
            "usage": usage,
        }

    def events(self, said: Said) -> list[bytes]:
        usage = {"input_tokens": said.prompt, "output_tokens": 1, "cache_read_input_tokens": 0}
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {"id": "msg_1", "content": [], "usage": usage}},
            {"type": "ping"},
        ]
        blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        if said.thoughts:
            deltas = [{"type": "thinking_delta", "thinking": text} for text in said.thoughts]
            deltas.append({"type": "signature_delta", "signature": "abc"})
            blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, deltas))
        if said.texts:
            text_deltas = [{"type": "text_delta", "text": text} for text in said.texts]
            blocks.append(({"type": "text", "text": ""}, text_deltas))
        for index, (name, arguments) in enumerate(said.calls):
            text = orjson.dumps(arguments).decode() if arguments else ""
            pieces = [{"type": "input_json_delta", "partial_json": one} for one in ("", text[:3], text[3:])]
            blocks.append(({"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}}, pieces))
        for index, (block, deltas) in enumerate(blocks):
            events.append({"type": "content_block_start", "index": index, "content_block": block})
            events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": index})
        stop = {"stop_reason": self.finishes[said.finish], "stop_sequence": None}
        events.append({"type": "message_delta", "delta": stop, "usage": {"output_tokens": said.completion}})
        events.append({"type": "message_stop"})
        return [self._event(event) for event in events]

    def _event(self, event: dict[str, Any]) -> bytes:
        return b"event: %b\n%b" % (event["type"].encode(), sse(event))

    def error(self, status: int, message: str) -> dict[str, Any]:
        kinds = {
            400: "invalid_request_error",
            401: "authentication_error",
            403: "permission_error",
            404: "not_found_error",
            413: "request_too_large",
            429: "rate_limit_error",
            529: "overloaded_error",
        }
        error = {"type": kinds.get(status, "api_error"), "message": message}
        return {"type": "error", "error": error, "request_id": "req_1"}

    def error_inside(self, message: str) -> bytes:
        return self._event({"type": "error", "error": {"type": "api_error", "message": message}})


class GeminiFormat:
    type: ClassVar[str] = "gemini"
    key_header: ClassVar[str] = "x-goog-api-key"
    finishes: ClassVar[dict[str, str]] = {
        "stop": "STOP",
        "length": "MAX_TOKENS",
        "tool_calls": "STOP",
        "content_filter": "SAFETY",
    }

    def target(self, *, stream: bool) -> str:
        return f"/models/m:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}"

    def _piece(self, said: Said, parts: list[dict[str, Any]], *, last: bool) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
        usage = {"promptTokenCount": said.prompt}
        if last:
            candidate["finishReason"] = self.finishes[said.finish]
            usage |= {"candidatesTokenCount": said.completion - 1, "thoughtsTokenCount": 1}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"}

    def _parts(self, said: Said) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = [{"text": text, "thought": True} for text in said.thoughts]
        parts += [{"text": text} for text in said.texts]
        return parts + [{"functionCall": {"name": name, "args": args}} for name, args in said.calls]

    def whole(self, said: Said) -> dict[str, Any]:
        return self._piece(said, self._parts(said), last=True)

    def events(self, said: Said) -> list[bytes]:
        parts = self._parts(said)
        pieces = [self._piece(said, [part], last=False) for part in parts]
        return [sse(piece).replace(b"\n", b"\r\n") for piece in [*pieces, self._piece(said, [], last=True)]]

    def error(self, status: int, message: str) -> dict[str, Any]:
        return {"error": {"code": status, "message": message, "status": "X"}}

    def error_inside(self, message: str) -> bytes:
        return sse(self.error(500, message))


FORMATS: dict[str, Format] = {
    form.type: form
    for form in (OllamaFormat(), OpenAIFormat(), OpenRouterFormat(), AnthropicFormat(), GeminiFormat())
}
