"""The one shape of a failure, from every daemon and on every route."""

from typing import Literal

from schemas.base import Model

ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "conflict_error",
    "rate_limit_error",
    "upstream_error",
    "unavailable_error",
    "internal_error",
]


class ErrorBody(Model):
    """What went wrong, for people (`message`) and for programs (`type`, `code`, `param`)."""

    message: str
    type: ErrorType
    code: str
    param: str | None = None
    request_id: str | None = None


class ErrorEnvelope(Model):
    """The body of every answer that is not a success."""

    error: ErrorBody
