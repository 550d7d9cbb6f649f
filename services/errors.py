"""Our exception hierarchy: what a caller is told, and with which status.

* PlatformError            500  (any failure we expected)
  + InvalidRequest         400
    - UnknownField         400
    - RequestTimeout       408
  + Unauthenticated        401
  + Forbidden              403
  + NotFound               404
  + MethodNotAllowed       405
  + Conflict               409
  + TooLarge               413
  + Overloaded             429
  + UpstreamError          502
  + Unavailable            503
    - Draining             503
  + UpstreamTimeout        504

Raise the narrowest one, with a message the caller can act on; one handler turns it into the envelope.
"""

from typing import ClassVar

from schemas.errors import ErrorBody, ErrorEnvelope, ErrorType


class PlatformError(Exception):
    """A failure we expected: the caller sees its message, nobody is paged.

    `code` narrows the class's own; `param` names the offending field as a dotted path;
    `retry_after_s` becomes the `retry-after` header. `summary` is what logs say of it: the message, unless
    that quotes somebody else, who may quote what the caller sent.
    """

    status: ClassVar[int] = 500
    type: ClassVar[ErrorType] = "internal_error"
    code: str = "internal"
    retry_after_s: float | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        summary: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.summary = summary or message
        self.param = param
        if code is not None:
            self.code = code
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s

    def envelope(self, request_id: str | None) -> ErrorEnvelope:
        return ErrorEnvelope(
            error=ErrorBody(
                message=self.message,
                type=self.type,
                code=self.code,
                param=self.param,
                request_id=request_id,
            )
        )


class InvalidRequest(PlatformError):
    """The request cannot be understood or breaks a rule; sending it again changes nothing."""

    status = 400
    type: ClassVar[ErrorType] = "invalid_request_error"
    code = "invalid_request"


class UnknownField(InvalidRequest):
    """A field that the route does not know."""

    code = "unknown_field"


class RequestTimeout(InvalidRequest):
    """The request did not come in whole within the time that it may take."""

    status = 408
    code = "request_timeout"


class Unauthenticated(PlatformError):
    """No key, or one that is not valid. Never raised because a store is down."""

    status = 401
    type: ClassVar[ErrorType] = "authentication_error"
    code = "invalid_api_key"


class Forbidden(PlatformError):
    """The key is valid, and lacks the scope or the job role."""

    status = 403
    type: ClassVar[ErrorType] = "permission_error"
    code = "permission_denied"


class NotFound(PlatformError):
    """What the path or the body names does not exist."""

    status = 404
    type: ClassVar[ErrorType] = "not_found_error"
    code = "not_found"


class MethodNotAllowed(PlatformError):
    """The path exists, the method does not."""

    status = 405
    type: ClassVar[ErrorType] = "invalid_request_error"
    code = "method_not_allowed"


class Conflict(PlatformError):
    """It would contradict something that exists."""

    status = 409
    type: ClassVar[ErrorType] = "conflict_error"
    code = "conflict"


class TooLarge(PlatformError):
    """The body is larger than the limit."""

    status = 413
    type: ClassVar[ErrorType] = "invalid_request_error"
    code = "body_too_large"


class Overloaded(PlatformError):
    """A queue or a rate limit is full: the same request may succeed a little later."""

    status = 429
    type: ClassVar[ErrorType] = "rate_limit_error"
    code = "rate_limited"
    retry_after_s = 1.0


class UpstreamError(PlatformError):
    """A model server or provider answered with a failure or with nonsense."""

    status = 502
    type: ClassVar[ErrorType] = "upstream_error"
    code = "upstream_failed"


class Unavailable(PlatformError):
    """Something this route needs is down; the message names it."""

    status = 503
    type: ClassVar[ErrorType] = "unavailable_error"
    code = "unavailable"
    retry_after_s = 1.0


class Draining(Unavailable):
    """The process is shutting down; another replica, or the next start, will serve."""

    code = "draining"


class UpstreamTimeout(PlatformError):
    """A model server or provider took too long."""

    status = 504
    type: ClassVar[ErrorType] = "upstream_error"
    code = "upstream_timeout"
