"""The gateway as the commands see it: typed answers, our errors."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from services.errors import Unavailable, UpstreamError, UpstreamTimeout
from services.http import raise_for_envelope
from stillhouse.settings import CliSettings

Answer = TypeVar("Answer", bound=BaseModel)

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

    def _call(
        self, method: str, path: str, answer: type[Answer], body: Mapping[str, Any] | BaseModel | None
    ) -> Answer:
        value = body.model_dump(mode="json", exclude_none=True) if isinstance(body, BaseModel) else body
        with self._translated():
            response = self._client.request(method, path, json=value)
        raise_for_envelope("the gateway", response)
        try:
            return answer.model_validate_json(response.content)
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
