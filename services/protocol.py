"""The server's side of HTTP/1.1: what is no HTTP gets the envelope too, and heads are bounded."""

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services import ids
from services.errors import InvalidRequest

HEAD_BYTES_MAX: Final = 64 * 1024
"""Request line and headers together."""


class EnvelopeProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself answers in plain text and lets a head grow without end."""

    _in_head = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:  # still: all of this was head
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self._refuse(
                    f"the head of the request is larger than {HEAD_BYTES_MAX} bytes", "head_too_large"
                )

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words say no more than ours
        self._refuse("this is not a request in HTTP/1.1", "invalid_http")

    def _refuse(self, message: str, code: str) -> None:
        request_id = ids.uuid7()
        body = InvalidRequest(message, code=code).envelope(request_id).model_dump_json()
        head = (
            "HTTP/1.1 400 Bad Request",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-request-id: {request_id}",
            "connection: close",
        )
        self.transport.write(("\r\n".join(head) + "\r\n\r\n" + body).encode("ascii"))
        self.transport.close()
