"""The chat gate: an answer that is to be validated stays here until its verdict lets it go.

What leaves is what was judged, written anew, and nothing beside it: no words around the JSON, no thinking.
Of an answer that is held back not a byte leaves; in its place stands a refusal that names the finding codes.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from chatd.backends import Completion, Delta, pieces_of
from chatd.engine.calls import Call
from chatd.engine.loop import ACCEPTED, Loop, Tried, Work, best_of
from chatd.engine.metrics import Metrics
from schemas.base import JsonObject
from schemas.chat import ChatRequest, GateSpec
from schemas.runs import Usage
from schemas.verdicts import Verdict
from services.errors import InvalidRequest

CODES_MAX: Final = 32
"""So many finding codes are told in a header."""

_CODE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_VISIBLE: Final = re.compile(r"[!-~]{1,256}")


@dataclass(frozen=True, slots=True)
class Gated:
    """What may leave: the answer, or the refusal in its place. `verdict` is the one that decided."""

    asked: ChatRequest
    call: Call
    completion: Completion
    verdict: Verdict

    @property
    def headers(self) -> dict[str, str]:
        """The verdict, for clients that look at headers."""
        codes = _codes(self.verdict)
        policy = self.verdict.validator.policy_version
        return {
            "x-verdict": self.verdict.verdict,
            **({"x-verdict-codes": ",".join(codes)} if codes else {}),
            **({"x-policy-version": policy} if _VISIBLE.fullmatch(policy) else {}),
        }

    def deltas(self) -> tuple[Delta, Delta]:
        """The same as a stream of two: what is said, and how it ends."""
        said = self.completion
        calls = pieces_of(said.tool_calls)
        return (
            Delta(content=said.content or "", refusal=said.refusal or "", tool_calls=calls),
            Delta(finish_reason=said.finish_reason, usage=said.usage),
        )


class Gate:
    def __init__(self, loop: Loop, metrics: Metrics) -> None:
        self._loop = loop
        self._metrics = metrics

    async def answer(self, request: ChatRequest, spec: GateSpec, episode_id: str | None) -> Gated:
        """Ask, judge, repair where that is wanted; say what may leave.

        Raises `InvalidRequest` for what cannot be judged or repaired, `Unavailable` when there is no verdict,
        and the provider's error when no attempt came to an answer.
        """
        _refuse_what_cannot_be_held(request, spec)
        allowed = ACCEPTED | frozenset(spec.allow)
        told: JsonObject = {"allow": [*spec.allow]}
        tried = await self._loop.run(
            Work(
                request=request.model_copy(update={"validate_": None}),
                models=[request.model],
                kind=spec.kind,
                context=spec.context,
                attempts_max=spec.attempts_max,
                episode_id=episode_id,
                as_written=True,
                allowed=allowed,
                ext={"gate": told},
            )
        )
        best, verdict = best_of(tried)
        assert best.completion is not None
        passes = verdict.verdict in allowed
        self._metrics.gated.labels(verdict.verdict, "released" if passes else "held").inc()
        usage = _all_usage(tried)
        if not passes:
            return Gated(request, best.call, _refusal(verdict, usage), verdict)
        said = best.completion
        released = Completion(said.content, said.finish_reason, usage, said.tool_calls)
        return Gated(request, best.call, released, verdict)


def _refuse_what_cannot_be_held(request: ChatRequest, spec: GateSpec) -> None:
    if request.n is not None and request.n > 1:
        raise InvalidRequest(
            f"`n` is {request.n}; with `validate` one choice a call is supported",
            code="unsupported_parameter",
            param="n",
        )
    if request.tools and spec.attempts_max > 1:
        raise InvalidRequest(
            "tool calls can be judged, not repaired: leave `validate.attempts_max` at 1 beside `tools`",
            code="unsupported_parameter",
            param="validate.attempts_max",
        )


def _refusal(verdict: Verdict, usage: Usage) -> Completion:
    """What is said in place of an answer: codes, which are words of the validator's own, and no more."""
    codes = ", ".join(_codes(verdict, ("error", "review"))) or "none"
    said = f"The answer was held back by validation as {verdict.kind}: {verdict.verdict}."
    return Completion(None, "content_filter", usage, refusal=f"{said} Finding codes: {codes}.")


def _codes(verdict: Verdict, severities: Sequence[str] = ("error", "review", "warning", "info")) -> list[str]:
    """The codes of the findings, each once, in the order of the findings."""
    found = (finding.code for finding in verdict.findings if finding.severity in severities)
    return [code for code in dict.fromkeys(found) if _CODE.fullmatch(code)][:CODES_MAX]


def _all_usage(tried: Iterable[Tried]) -> Usage:
    """The tokens of all attempts; unknown when those of one are."""
    prompt = completion = 0
    for one in tried:
        usage = one.usage
        if one.error is not None and usage.prompt_tokens is None:
            continue  # it failed before it cost anything that anybody counted
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            return Usage()
        prompt += usage.prompt_tokens
        completion += usage.completion_tokens
    return Usage(prompt_tokens=prompt, completion_tokens=completion)
