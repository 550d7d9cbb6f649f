"""The gateway as the commands see it: typed answers, our errors."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import orjson
from pydantic import BaseModel, ValidationError

from services.errors import NotFound, Unavailable, UpstreamError, UpstreamTimeout
from services.http import raise_for_envelope
from stillhouse.settings import CliSettings

Answer = TypeVar("Answer", bound=BaseModel)

NDJSON: Final = {"content-type": "application/x-ndjson"}
DOWNLOAD_BYTES: Final = 1024 * 1024
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class GatewayClient:
    """One connection to the gateway, with the key from the environment. A context manager.

    Calls raise the gateway's own error when it refuses, `Unavailable` when it is not there.
    """

    def __init__(self, settings: CliSettings, *, transport: httpx.BaseTransport | None = None) -> None:
        key = settings.api_key
        self._timeout_s = settings.timeout_s
        self._client = httpx.Client(
            base_url=settings.gateway_url,
            headers={"authorization": f"Bearer {key.get_secret_value()}"} if key is not None else None,
            timeout=httpx.Timeout(settings.timeout_s, connect=2.0),
            transport=transport,
            trust_env=urlsplit(settings.gateway_url).hostname not in LOOPBACK,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, answer: type[Answer]) -> Answer:
        return self._call("GET", path, answer, None)

    def post(self, path: str, answer: type[Answer], body: Mapping[str, Any] | BaseModel) -> Answer:
        return self._call("POST", path, answer, body)

    def put(self, path: str, answer: type[Answer], body: Mapping[str, Any] | BaseModel) -> Answer:
        return self._call("PUT", path, answer, body)

    def post_ndjson(self, path: str, answer: type[Answer], lines: bytes) -> Answer:
        """Post lines; one answer for all of them."""
        return self._parsed("POST", path, answer, self._send("POST", path, lines).content)

    def post_lines(
        self, path: str, answer: type[Answer], values: Sequence[Mapping[str, Any]]
    ) -> list[Answer]:
        """Post one JSON line for each value; one answer for each, in order."""
        content = b"".join(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE) for value in values)
        lines = self._send("POST", path, content).content.splitlines()
        if len(lines) != len(values):
            raise UpstreamError(f"POST {path} answered {len(lines)} lines to {len(values)}")
        return [self._parsed("POST", path, answer, line) for line in lines]

    def has(self, path: str) -> bool:
        """Whether a GET finds something there."""
        try:
            self._send("GET", path)
        except NotFound:
            return False
        return True

    def delete_if_there(self, path: str) -> None:
        with contextlib.suppress(NotFound):
            self._send("DELETE", path)

    def download(self, path: str) -> Iterator[bytes]:
        """A file, piece by piece."""
        with self._translated(), self._client.stream("GET", path) as response:
            if response.is_error:
                response.read()
                raise_for_envelope("the gateway", response)
            yield from response.iter_bytes(DOWNLOAD_BYTES)

    def upload(self, path: str, answer: type[Answer], content: bytes) -> Answer:
        """Put a zip file."""
        response = self._send("PUT", path, content, {"content-type": "application/zip"})
        return self._parsed("PUT", path, answer, response.content)

    def _call(
        self, method: str, path: str, answer: type[Answer], body: Mapping[str, Any] | BaseModel | None
    ) -> Answer:
        value = body.model_dump(mode="json", exclude_none=True) if isinstance(body, BaseModel) else body
        content = orjson.dumps(value) if value is not None else None
        headers = {"content-type": "application/json"}
        return self._parsed(method, path, answer, self._send(method, path, content, headers).content)

    def _send(
        self, method: str, path: str, content: bytes | None = None, headers: Mapping[str, str] = NDJSON
    ) -> httpx.Response:
        with self._translated():
            response = self._client.request(method, path, content=content, headers=headers)
        raise_for_envelope("the gateway", response)
        return response

    def _parsed(self, method: str, path: str, answer: type[Answer], content: bytes) -> Answer:
        try:
            return answer.model_validate_json(content)
        except ValidationError as error:
            raise UpstreamError(
                f"{method} {path} was answered with something else than a {answer.__name__};"
                f" is {self._client.base_url} a Stillhouse gateway of this version?"
            ) from error

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unavailable(
                f"no gateway answers at {self._client.base_url}; start it with `stillhouse up`,"
                " or set STILLHOUSE_GATEWAY_URL"
            ) from error
        except httpx.TimeoutException as error:
            raise UpstreamTimeout(
                f"the gateway did not answer within {self._timeout_s:g} s; STILLHOUSE_TIMEOUT_S allows more"
            ) from error
        except httpx.HTTPError as error:
            raise UpstreamError(f"the connection to the gateway broke: {type(error).__name__}") from error
