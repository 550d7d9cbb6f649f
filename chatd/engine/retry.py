"""What a failed attempt means for the next one: whether there is one, at which candidate, and when."""

import random
from collections.abc import Sequence
from enum import Enum
from typing import Final

from chatd.engine.candidates import Target
from services.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    Overloaded,
    PlatformError,
    TooLarge,
    UpstreamError,
    UpstreamTimeout,
)

RETRY_AFTER_MAX_S: Final = 60.0
"""What a caller is told at the most: beyond 120 s the official clients give up, and some wait without end."""

JITTER: Final = (0.8, 1.2)


class Failure(Enum):
    """The classes of failures. Each names the one thing that may help."""

    FINAL = "final"
    """The request itself is at fault, or the answer was: nothing helps."""
    BROKEN = "broken"
    """The same candidate may do better a little later, another one at once."""
    SLOW = "slow"
    """Another candidate; this one has used up its time."""
    BUSY = "busy"
    """Another candidate, or this one when the time has come that it named."""
    CREDENTIALS = "credentials"
    """Another key, or another candidate."""
    ELSEWHERE = "elsewhere"
    """Another candidate, which may have what this one lacks."""
    CONTEXT = "context"
    """A candidate that takes longer prompts."""
    POLICY = "policy"
    """A candidate with another content policy."""


_BY_CODE: Final = {
    "context_length_exceeded": Failure.CONTEXT,
    "content_policy_violation": Failure.POLICY,
    "upstream_credentials": Failure.CREDENTIALS,
    "response_format_violated": Failure.FINAL,
    "unsupported_parameter": Failure.ELSEWHERE,
}


def failure_of(error: PlatformError) -> Failure:
    """The class of a failure of one attempt."""
    if (known := _BY_CODE.get(error.code)) is not None:
        return known
    match error:
        case InvalidRequest() | NotFound() | TooLarge() | Forbidden():
            return Failure.FINAL
        case Overloaded():
            return Failure.BUSY
        case UpstreamTimeout():
            return Failure.SLOW
        case _:
            return Failure.BROKEN


def asked_s(error: PlatformError) -> float | None:
    """The seconds that the provider asked for: those that a class of errors has by default are our guess."""
    said: float | None = vars(error).get("retry_after_s")
    return said


def backoff_s(retry: int, *, least_s: float, most_s: float, wanted_s: float | None = None) -> float:
    """Seconds before the `retry`-th retry (from 0): doubling, with jitter, never less than was asked for."""
    doubled = min(most_s, least_s * 2.0**retry)
    jittered = doubled * random.uniform(*JITTER)  # noqa: S311 - spreads retries, guards nothing
    return max(jittered, wanted_s or 0.0)


def told(error: PlatformError, *, spent: bool) -> dict[str, str]:
    """Headers that keep a client's own retries from multiplying ours."""
    headers = {}
    if (after_s := error.retry_after_s) is not None:
        capped_s = min(after_s, RETRY_AFTER_MAX_S)
        headers["retry-after-ms"] = str(max(1, round(capped_s * 1000)))
    if spent:
        headers["x-should-retry"] = "false"
    return headers


class Course:
    """The way of one request along its targets: what is left of them, and of its attempts.

    Every failed attempt is reported to `failed`, which says how long to wait before the next one, or that
    there is none.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        context: Sequence[Target],
        policy: Sequence[Target],
        attempts_max: int,
    ) -> None:
        self.left = list(targets)
        self.made = 0
        self.first_error: PlatformError | None = None
        self._attempts_max = attempts_max
        self._instead = {Failure.CONTEXT: list(context), Failure.POLICY: list(policy)}
        self._tries: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._only_credentials = True

    @property
    def spent(self) -> bool:
        """Whether the request has used up its attempts."""
        return self.made >= self._attempts_max

    def begin(self, target: Target) -> int:
        """An attempt is made; returns the place of the key that it shall use."""
        self.made += 1
        self._tries[target.id] = self._tries.get(target.id, 0) + 1
        return self._keys.get(target.id, 0) % max(1, target.provider.keys)

    def failed(self, target: Target, error: PlatformError, *, closed: bool = True) -> float | None:
        """Seconds until the next attempt, None when there shall be none. `closed` tells of the circuit."""
        failure = failure_of(error)
        self.first_error = self.first_error or error
        self._only_credentials = self._only_credentials and failure is Failure.CREDENTIALS
        wait_s = self._after(target, failure, error, closed=closed)
        if not self.left or self.spent:
            return None
        return wait_s

    def verdict(self, error: PlatformError) -> PlatformError:
        """What the caller is told in the end: the failure of the one asked first."""
        if self._only_credentials and len(self._tries) > 1:
            return UpstreamError(
                "every candidate's provider refused the credentials it was given",
                code="upstream_credentials_exhausted",
            )
        return self.first_error or error

    def _after(self, target: Target, failure: Failure, error: PlatformError, *, closed: bool) -> float | None:
        match failure:
            case Failure.FINAL:
                return None
            case Failure.CONTEXT | Failure.POLICY:
                self._replace(target, failure)
                return 0.0
            case Failure.ELSEWHERE | Failure.SLOW:
                self._leave(target)
                return 0.0
            case Failure.CREDENTIALS:
                return self._with_another_key(target)
            case Failure.BUSY:
                return self._when_it_has_time(target, asked_s(error))
            case Failure.BROKEN:
                return self._again(target, asked_s(error)) if closed else self._elsewhere(target)

    def _again(self, target: Target, wanted_s: float | None) -> float | None:
        """The same target after a pause, unless it had its tries or asks for too much patience."""
        rules = target.spec.retries
        tries = self._tries.get(target.id, 0)
        elsewhere = len(self.left) > 1
        if tries >= rules.attempts_max or (wanted_s or 0.0) > (0.0 if elsewhere else rules.backoff_max_s):
            return self._elsewhere(target)
        return backoff_s(
            tries - 1, least_s=rules.backoff_min_s, most_s=rules.backoff_max_s, wanted_s=wanted_s
        )

    def _when_it_has_time(self, target: Target, wanted_s: float | None) -> float | None:
        if self._turn_key(target):
            rules = target.spec.retries
            return backoff_s(0, least_s=rules.backoff_min_s, most_s=rules.backoff_max_s)
        if len(self.left) > 1:
            return self._elsewhere(target)
        return self._again(target, wanted_s)

    def _with_another_key(self, target: Target) -> float | None:
        return 0.0 if self._turn_key(target) else self._elsewhere(target)

    def _turn_key(self, target: Target) -> bool:
        """Whether there is a key that this request has not used yet."""
        turned = self._keys.get(target.id, 0) + 1
        self._keys[target.id] = turned
        return turned < target.provider.keys

    def _elsewhere(self, target: Target) -> float | None:
        self._leave(target)
        return 0.0 if self.left else None

    def _replace(self, target: Target, failure: Failure) -> None:
        """Go on with the targets for this failure, the first time; later on only leave this one."""
        instead = self._instead.pop(failure, None)
        if instead is None:
            self._leave(target)
        else:
            self.left = [one for one in instead if one.id not in self._tries]

    def _leave(self, target: Target) -> None:
        self.left = [one for one in self.left if one.id != target.id]
