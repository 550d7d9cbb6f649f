"""Who is asking, and under which ids: set once a request, read by logs, clients and records."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

REQUEST_ID_HEADER = "x-request-id"
TRACEPARENT_HEADER = "traceparent"
PRINCIPAL_HEADER = "x-stillhouse-principal"
ROLES_HEADER = "x-stillhouse-roles"


@dataclass(slots=True)
class RequestContext:
    """The identity of one request as it passes through the daemons.

    `principal` is the name of the caller's key. `roles` are the job roles that the key is limited to;
    None means that it is not limited, an empty tuple that it may ask for none. `parent_id` is the span of
    the caller, where the request is traced and they have one.
    """

    request_id: str
    traceparent: str
    principal: str | None = None
    roles: tuple[str, ...] | None = None
    parent_id: str | None = None

    def headers(self) -> dict[str, str]:
        """The headers that hand this identity to the next daemon."""
        out = {REQUEST_ID_HEADER: self.request_id, TRACEPARENT_HEADER: self.traceparent}
        if self.principal is not None:
            out[PRINCIPAL_HEADER] = self.principal
        if self.roles is not None:
            out[ROLES_HEADER] = ",".join(self.roles)
        return out


_current: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def current() -> RequestContext | None:
    """The request being served, or None outside of one."""
    return _current.get()


def enter(context: RequestContext) -> None:
    """Make `context` the current one for the rest of this task."""
    _current.set(context)


@contextmanager
def within(context: RequestContext) -> Iterator[None]:
    """Make `context` the current one for the length of a block."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)
