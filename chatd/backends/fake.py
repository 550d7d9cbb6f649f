"""A provider without a model, for tests: it answers what it was told to."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass

from chatd.backends.conversation import declared
from chatd.backends.failures import truncated
from chatd.backends.provider import Completion, Delta, Gathered, Lack, ModelInfo, refuse
from schemas.base import JsonObject
from schemas.chat import ChatRequest
from schemas.runs import Usage
from services.errors import InvalidRequest, NotFound, PlatformError


@dataclass(frozen=True, slots=True)
class Step:
    """One answer: its deltas, then an error, an endless wait, or neither."""

    deltas: Sequence[Delta] = ()
    error: PlatformError | None = None
    hang: bool = False

    @classmethod
    def saying(cls, text: str, *, prompt_tokens: int = 7) -> "Step":
        """The words of a text one by one, then a clean end. A word counts as a token."""
        words = text.split(" ")
        pieces = [Delta(content=word if index == 0 else f" {word}") for index, word in enumerate(words)]
        usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=len(words))
        return cls([*pieces, Delta(finish_reason="stop", usage=usage)])


class FakeProvider:
    """Plays its script, one step a call, and then fails. Keeps the requests, and counts those cancelled."""

    def __init__(
        self,
        name: str,
        script: Sequence[Step],
        *,
        models: Sequence[str] = ("fake",),
        keys: int = 1,
        lacks: Collection[str] = (),
    ) -> None:
        self._name = name
        self._script = list(script)
        self._models = list(models)
        self.requests: list[ChatRequest] = []
        self.keys_used: list[int] = []
        self.cancelled = 0
        self.retired = False
        self._keys = keys
        self._lacks = lacks

    @property
    def name(self) -> str:
        return self._name

    @property
    def config(self) -> JsonObject:
        return {"provider": self._name, "api": "fake"}

    @property
    def keys(self) -> int:
        return self._keys

    def retire(self) -> None:
        self.retired = True

    def lacking(self, request: ChatRequest) -> tuple[Lack, ...]:
        severally = [Lack("n", "one choice a call is supported")] if (request.n or 1) > 1 else []
        return (*severally, *declared(request, self._lacks))

    async def complete(self, request: ChatRequest, *, key: int = 0) -> Completion:
        gathered = Gathered()
        async for delta in self.stream(request, key=key):
            gathered.add(delta)
        return gathered.completion()

    async def stream(self, request: ChatRequest, *, key: int = 0) -> AsyncGenerator[Delta, None]:
        self.keys_used.append(key)
        step = self._next(request)
        try:
            for delta in step.deltas:
                await asyncio.sleep(0)
                yield delta
                if delta.finish_reason is not None:
                    return
            if step.hang:
                await asyncio.Event().wait()
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        raise step.error or truncated(self._name)

    def play(self, *steps: Step) -> None:
        """What it shall say from now on, in place of what is left of its script."""
        self._script = list(steps)

    def _next(self, request: ChatRequest) -> Step:
        self.requests.append(request)
        if request.model not in self._models:
            raise NotFound(f"model '{request.model}' not found", code="model_not_found", param="model")
        refuse(self._name, self.lacking(request))
        if not self._script:
            raise InvalidRequest("the script of this fake is at its end")
        return self._script.pop(0)

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(name, digest="sha256:fake") for name in self._models]

    async def digest(self, model: str) -> str | None:
        return "sha256:fake" if model in self._models else None
