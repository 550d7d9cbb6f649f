"""The chat model: llama.cpp inside this process, with continuous batching and grammar-constrained output."""

import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import xllamacpp
from pydantic import JsonValue

from modeld.backends.errors import ContextExceeded, FormatRefused, GenerationFailed
from modeld.backends.protocols import Emit, Message, Report, Sampling

GRAMMARS_MAX: Final = 256
SILENT: Final = -1
MARK: Final = "\x1e"  # RFC 7464's record separator: no model opens an answer with it unless it is forced to


class LlamaChat:
    """A ChatML model on llama.cpp's own server loop, called without HTTP.

    The library also opens a port on loopback, which cannot be turned off: it gets a random one and a key that
    nobody knows. Keys and values are kept in 8 bits, which halves the memory of the context.
    """

    def __init__(self, weights: Path, *, context_tokens: int, slots: int, threads: int, system: str) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(weights)
        params.n_ctx = context_tokens * slots
        params.n_parallel = slots
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_Q8_0
        params.cache_ram_mib = 0  # otherwise prompts pile up in memory, 8 GiB of them
        params.fit_params = False
        params.warmup = False
        params.verbosity = SILENT  # its lines are not JSON, and quote what users wrote
        params.api_keys = [secrets.token_hex(32)]
        params.n_threads_http = 1
        params.endpoint_slots = False
        params.ui = False
        self._server: Any = xllamacpp.Server(params)
        self._context_tokens = context_tokens
        self._system = system
        self._grammars: OrderedDict[str, bool] = OrderedDict()
        self._grammars_lock = threading.Lock()

    def render(self, messages: Sequence[Message]) -> str:
        turns = list(messages)
        if not turns or turns[0].role != "system":
            turns.insert(0, Message("system", self._system))
        text = "".join(f"<|im_start|>{turn.role}\n{turn.content}<|im_end|>\n" for turn in turns)
        if turns[-1].role == "assistant":  # the caller began the answer: the model goes on from there
            return text.removesuffix("<|im_end|>\n")
        return text + "<|im_start|>assistant\n"

    def generate(
        self, prompt: str, sampling: Sampling, schema: Mapping[str, JsonValue] | None, emit: Emit
    ) -> Report:
        body: dict[str, Any] = {"prompt": prompt, **_sampling(sampling)}
        if schema is not None:
            body["grammar"] = self._grammar(schema)
        answer = self._run(body, emit)
        if answer.error is not None:
            raise _failure(answer.error, self._context_tokens)
        # Pieces are checked only when the model ended by itself: a limit or a stop text may cut anywhere.
        if schema is not None and answer.finish == "stop" and not sampling.stop:
            _demand_json("".join(answer.pieces))
        return answer.report()

    def close(self) -> None:
        del self._server

    def _run(self, body: Mapping[str, Any], emit: Emit) -> "_Answer":
        answer = _Answer(emit)
        request = {**body, "stream": True, "stream_options": {"include_usage": True}}
        try:
            self._server.handle_completions(request, answer.take)
        except (ValueError, RuntimeError) as error:
            raise GenerationFailed(f"llama.cpp refused the request: {type(error).__name__}") from error
        return answer

    def _grammar(self, schema: Mapping[str, JsonValue]) -> str:
        """The schema as a grammar that is known to hold.

        llama.cpp goes on without any constraint when it cannot compile a grammar, and says nothing. So each
        new schema is tried once, on one token, behind a mark that only a grammar in force can produce.
        """
        compact = {**schema, "x-guidance": {"whitespace_flexible": False}}
        text = json.dumps(compact, sort_keys=False)
        with self._grammars_lock:
            known = self._grammars.get(text)
        if known is None:
            known = self._holds(text)
            with self._grammars_lock:
                self._grammars[text] = known
                while len(self._grammars) > GRAMMARS_MAX:
                    self._grammars.popitem(last=False)
        if not known:
            raise FormatRefused(
                "`format`: this JSON Schema cannot be enforced: it is unsatisfiable, or uses a keyword,"
                " a format or a pattern that constrained output does not support",
                param="format",
            )
        return f"%llguidance {{}}\nstart: %json {text}"

    def _holds(self, schema: str) -> bool:
        grammar = f"%llguidance {{}}\nstart: {json.dumps(MARK)} body\nbody: %json {schema}"
        answer = self._run(
            {"prompt": "JSON", "grammar": grammar, "max_tokens": 4, "temperature": 0.0}, lambda _: True
        )
        return "".join(answer.pieces).startswith(MARK)


class _Answer:
    """Collects what llama.cpp's callback brings."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.pieces: list[str] = []
        self.finish = "stop"
        self.error: Mapping[str, Any] | None = None
        self._usage: Mapping[str, int] = {}
        self._timings: Mapping[str, float] = {}

    def take(self, chunk: Mapping[str, Any]) -> bool:
        """Note one chunk; True ends the generation."""
        if "error" in chunk:
            self.error = chunk["error"]
            return True
        self._usage = chunk.get("usage") or self._usage
        self._timings = chunk.get("timings") or self._timings
        stop = False
        for choice in chunk.get("choices", ()):
            self.finish = choice.get("finish_reason") or self.finish
            if text := choice.get("text"):
                self.pieces.append(text)
                stop = self._emit(text)
        return stop

    def report(self) -> Report:
        return Report(
            finish="length" if self.finish == "length" else "stop",
            prompt_tokens=self._usage.get("prompt_tokens", 0),
            prompt_ns=_ns(self._timings.get("prompt_ms", 0.0)),
            answer_tokens=self._usage.get("completion_tokens", len(self.pieces)),
            answer_ns=_ns(self._timings.get("predicted_ms", 0.0)),
        )


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1_000_000)


def _sampling(sampling: Sampling) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "typical_p": sampling.typical_p,
        "repeat_penalty": sampling.repeat_penalty,
        "repeat_last_n": sampling.repeat_last_n,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": secrets.randbits(32) if sampling.seed is None else sampling.seed,
        "max_tokens": -1 if sampling.predict_max is None else sampling.predict_max,
        "stop": list(sampling.stop),
    }


def _failure(error: Mapping[str, Any], context_tokens: int) -> ContextExceeded | GenerationFailed:
    if error.get("type") == "exceed_context_size_error":
        return ContextExceeded(
            f"the prompt of {error.get('n_prompt_tokens')} tokens"
            f" exceeds the context length of {context_tokens}"
        )
    return GenerationFailed(f"llama.cpp failed with {error.get('type')} {error.get('code')}")


def _demand_json(text: str) -> None:
    try:
        json.loads(text)
    except ValueError:
        raise GenerationFailed("the constrained answer is not JSON; ask again") from None
