"""What a provider's refusals and faults mean to our caller, whose credentials they never concern."""

import email.utils
import re
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson

from services.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    PlatformError,
    TooLarge,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from services.telemetry import redact

RETRY_AFTER_MAX_S: Final = 3600.0
REASON_CHARS_MAX: Final = 500
NO_REASON: Final = "no reason given"
CONTEXT_LENGTH: Final = "context_length_exceeded"
CONTENT_POLICY: Final = "content_policy_violation"

_SECONDS: Final = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_CONTEXT: Final = re.compile(
    r"context[ _](?:length|size|window)|prompt is too long|input is too long"
    r"|token count .{0,40}exceeds|maximum (?:number of )?(?:context|tokens allowed)",
    re.IGNORECASE,
)
_CONTEXT_CODES: Final = frozenset(
    {CONTEXT_LENGTH, "exceed_context_size_error", "string_above_max_length", "model_context_window_exceeded"}
)
_POLICY_CODES: Final = frozenset(
    {CONTENT_POLICY, "content_filter", "content_policy", "moderation_blocked", "invalid_prompt"}
)


def failure(  # noqa: PLR0911 - a table of statuses
    provider: str,
    status: int,
    reason: str,
    headers: Mapping[str, str],
    *,
    param: str | None = None,
    code: object = None,
) -> PlatformError:
    """The error for an answer of `status`, or for an error that a provider told inside a good one.

    `code` is the provider's own. `retry_after_s` is as the provider said it, up to an hour.
    """
    reason = redact(reason)[:REASON_CHARS_MAX] or NO_REASON
    summary = f"{provider} answered {status}"
    said = f"{summary}: {reason}"
    match status:
        case 400 | 413 | 422 if code in _CONTEXT_CODES or (status != 413 and _CONTEXT.search(reason)):
            return InvalidRequest(reason, code=CONTEXT_LENGTH, param="messages")
        case 400 | 403 | 422 if code in _POLICY_CODES:
            return InvalidRequest(reason, code=CONTENT_POLICY, param="messages")
        case 400 | 422:
            return InvalidRequest(reason, code="upstream_refused", param=param)
        case 401 | 402 | 403:
            return UpstreamError(
                f"{provider} refused the credentials it was given ({status})", code="upstream_credentials"
            )
        case 404:
            return NotFound(reason, code="model_not_found", param="model")
        case 408 | 504:
            return UpstreamTimeout(said, summary=summary)
        case 413:
            return TooLarge(said)
        case 429:
            return Overloaded(said, code="upstream_rate_limited", retry_after_s=retry_after(headers))
        case 503 | 529:  # 529 is Anthropic's own, and of those who copy it
            wait_s = retry_after(headers)
            return Unavailable(said, code=f"{provider}_busy", retry_after_s=wait_s, summary=summary)
        case _:
            return UpstreamError(said, retry_after_s=retry_after(headers), summary=summary)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The wait that a provider asks for, in seconds; None where it says none, or nonsense."""
    if (wait_ms := _number(headers.get("retry-after-ms", ""))) is not None:
        return min(wait_ms / 1000, RETRY_AFTER_MAX_S)
    said = headers.get("retry-after", "")
    wait_s = _number(said)
    if wait_s is None and (moment := email.utils.parsedate_tz(said)) is not None:
        wait_s = max(email.utils.mktime_tz(moment) - time.time(), 0.0)
    return None if wait_s is None else min(wait_s, RETRY_AFTER_MAX_S)


def _number(text: str) -> float | None:
    return float(text) if _SECONDS.fullmatch(text.strip()) else None


def status_in(error: object) -> int:
    """The status that an error inside a good answer has, where it says one."""
    code = error.get("code") if isinstance(error, dict) else None
    status = error.get("status") if isinstance(error, dict) else None
    for said in (code, status):
        if isinstance(said, int) and 400 <= said < 600:
            return said
    return 502


def error_in(body: bytes) -> Any:
    """The error that the body of a refusal tells; None where it tells none that can be read."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    said = said[0] if isinstance(said, list) and said else said
    return said.get("error", said) if isinstance(said, dict) else None


def truncated(provider: str) -> UpstreamError:
    return UpstreamError(f"{provider} ended its stream before the answer was finished", code="truncated")


def invalid(provider: str, what: str) -> UpstreamError:
    return UpstreamError(f"{provider} sent {what}", code="upstream_invalid")


def too_long(provider: str, what: str, bytes_max: int) -> UpstreamError:
    return UpstreamError(
        f"{provider} sent a {what} of more than {bytes_max} bytes", code="upstream_answer_too_large"
    )
