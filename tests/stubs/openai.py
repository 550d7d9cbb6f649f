"""An OpenAI-compatible embedding server on a real socket, as faulty as a test's script says."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedd.engine import PROBES
from tests.stubs.ollama import OllamaStub, Reply, said


@dataclass
class OpenAIStub(OllamaStub):
    """`replies` are sent in place of good answers, in order. Items come in reverse, as their index allows."""

    model: str = "large"
    replies: Sequence[Reply] = ()

    async def _answer(self, target: str, body: bytes) -> Reply:
        if target == "/v1/models":
            return said(200, {"object": "list", "data": [{"id": self.model}]})
        if target != "/v1/embeddings":
            return said(404, {"error": {"message": "no such route"}})
        texts: list[str] = json.loads(body)["input"]
        if not set(texts) <= set(PROBES):
            self.calls.append(texts)
            if self.replies:
                reply, *self.replies = self.replies
                return reply
        if any("too long" in text for text in texts):
            return said(400, {"error": {"message": "maximum context length exceeded"}})
        return said(200, {"data": self.items(texts), "usage": {"prompt_tokens": sum(map(len, texts))}})

    def items(self, texts: Sequence[str]) -> list[dict[str, object]]:
        return [
            {
                "index": index,
                "embedding": base64.b64encode(np.asarray(self.vector(text), "<f4").tobytes()).decode(),
            }
            for index, text in reversed(list(enumerate(texts)))
        ]
