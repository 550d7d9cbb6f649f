"""Which evidence is compared with which: windows as they were asked for, checked and made definite."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from distill.engine.columns import UNDATED
from distill.engine.times import microseconds, time_at
from schemas.distill import JobRequest
from services.errors import Conflict, InvalidRequest

Times = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Span:
    """From `since` up to, and without, `until`. One without either holds what has no time too."""

    since: datetime | None = None
    until: datetime | None = None

    def holds(self, times: Times) -> Flags:
        if self.since is None and self.until is None:
            return np.ones(len(times), np.bool_)
        held: Flags = times != UNDATED
        if self.since is not None:
            held &= times >= microseconds(self.since)
        if self.until is not None:
            held &= times < microseconds(self.until)
        return held

    def overlaps(self, other: "Span") -> bool:
        return not (_before(self, other) or _before(other, self))


def _before(first: Span, second: Span) -> bool:
    return first.until is not None and second.since is not None and first.until <= second.since


def checked(request: JobRequest) -> JobRequest:
    """The request itself. Raises `InvalidRequest` for windows that contradict themselves or each other."""
    named = next((name for name in ("baseline_since", "baseline_until") if getattr(request, name)), None)
    if named is not None and (request.profile is not None or request.measure_only):
        other = "measure_only" if request.measure_only else "profile"
        raise InvalidRequest(f"`{named}` does not go with `{other}`: no window is a baseline", param=named)
    if request.profile is not None and request.measure_only:
        raise InvalidRequest("`measure_only` compares nothing, not with a `profile` either", param="profile")
    _check_order(request, "since", "until")
    _check_order(request, "baseline_since", "baseline_until")
    border = request.since or request.baseline_until
    if border is not None:
        baseline, current = _windows(request, border)
        if baseline.overlaps(current):
            raise InvalidRequest(
                f"`baseline_until` {request.baseline_until} is in the other window; a piece of evidence is in"
                " one of them",
                param="baseline_until",
            )
    return request


def _check_order(request: JobRequest, first: str, last: str) -> None:
    begin, end = getattr(request, first), getattr(request, last)
    if begin is not None and end is not None and begin >= end:
        raise InvalidRequest(f"`{last}` {end} is not after `{first}` {begin}", param=last)


def spans(request: JobRequest, times: Times) -> tuple[Span | None, Span]:
    """The baseline, where one is measured, and the current window of a request that was `checked`.

    Where nothing says when the one ends and the other begins, the evidence is halved. Raises `Conflict`
    where there is nothing to halve.
    """
    if request.profile is not None or request.measure_only:
        return None, Span(request.since, request.until)
    border = request.since or request.baseline_until
    if border is None:
        border = _middle(times[Span(request.baseline_since, request.until).holds(times)])
    return _windows(request, border)


def _windows(request: JobRequest, border: datetime) -> tuple[Span, Span]:
    return (
        Span(request.baseline_since, request.baseline_until or border),
        Span(request.since or border, request.until),
    )


def _middle(times: Times) -> datetime:
    """The time that as many pieces are before as after."""
    dated = np.sort(times[times != UNDATED])
    if not len(dated) or dated[0] == dated[-1]:
        raise Conflict(
            "the evidence has no two times to tell an earlier from a later half; name a window by `since`",
            code="window_empty",
        )
    middle = dated[len(dated) // 2]
    border = middle if middle > dated[0] else dated[dated > middle][0]
    return time_at(int(border))
