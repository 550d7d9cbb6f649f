"""OpenAI's words for an answer: in one piece, or in chunks."""

from typing import Any

from chatd.backends import Completion, Delta
from chatd.engine.calls import Call
from schemas.base import JsonObject
from schemas.chat import (
    AnswerMessage,
    ChatChunk,
    ChatCompletion,
    ChatUsage,
    Choice,
    ChunkChoice,
    ChunkDelta,
    FinishReason,
    FunctionFragment,
    ToolCallFragment,
)
from schemas.runs import Usage


def whole(model: str, call: Call, completion: Completion) -> ChatCompletion:
    """The answer in one piece, under the model id that was asked for."""
    message = AnswerMessage(
        content=completion.content,
        refusal=completion.refusal,
        reasoning=completion.reasoning,
        tool_calls=list(completion.tool_calls) or None,
    )
    return ChatCompletion(
        id=_id(call),
        created=int(call.ts.timestamp()),
        model=model,
        choices=[
            Choice(message=message, finish_reason=completion.finish_reason, logprobs=completion.logprobs)
        ],
        usage=counted(completion.usage),
    )


def counted(usage: Usage) -> ChatUsage | None:
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return ChatUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


def _id(call: Call) -> str:
    return f"chatcmpl-{call.origin.run_id}"


class Chunks:
    """Writes the chunks of one stream: the same id, time and model throughout, the role once."""

    def __init__(self, model: str, call: Call, *, with_usage: bool) -> None:
        self._base = ChatChunk(
            id=_id(call),
            object="chat.completion.chunk",
            created=int(call.ts.timestamp()),
            model=model,
            choices=[],
        )
        self._with_usage = with_usage
        if with_usage:
            self._base = self._base.model_copy(update={"usage": None})
        self._role_sent = False

    def of(self, delta: Delta) -> ChatChunk:
        said: dict[str, Any] = {}
        if delta.content:
            said["content"] = delta.content
        if delta.reasoning:
            said["reasoning"] = delta.reasoning
        if delta.tool_calls:
            said["tool_calls"] = [
                ToolCallFragment(
                    index=piece.index,
                    id=piece.id,
                    type="function" if piece.id is not None else None,
                    function=FunctionFragment(name=piece.name, arguments=piece.arguments),
                    extra_content=piece.extra,
                )
                for piece in delta.tool_calls
            ]
        if delta.refusal:
            said["refusal"] = delta.refusal
        return self._chunk(said, logprobs=delta.logprobs)

    def refusal(self, text: str) -> ChatChunk:
        return self._chunk({"refusal": text})

    def finish(self, reason: FinishReason) -> ChatChunk:
        return self._chunk({}, reason)

    def usage(self, usage: Usage) -> ChatChunk | None:
        """The last chunk of a stream whose caller asked for it, where the tokens were counted."""
        known = counted(usage) if self._with_usage else None
        return None if known is None else self._base.model_copy(update={"usage": known})

    def _chunk(
        self,
        said: dict[str, Any],
        finish: FinishReason | None = None,
        *,
        logprobs: JsonObject | None = None,
    ) -> ChatChunk:
        if not self._role_sent:
            self._role_sent = True
            said = {"role": "assistant", "content": "", **said}
        choice = ChunkChoice(index=0, delta=ChunkDelta(**said), finish_reason=finish, logprobs=logprobs)
        return self._base.model_copy(update={"choices": [choice]})
