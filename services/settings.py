"""What every daemon can be told, from the environment. Each daemon adds its own under its prefix."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, FilePath, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from services.settings_files import FileSettingsSource

LogLevel = Literal["debug", "info", "warning", "error"]

INTERNAL_HEADER: Final = "x-stillhouse-internal"
"""By which our daemons know one another, where they share a secret."""
INTERNAL_TOKEN: Final = re.compile(r"[!-~]{16,256}")
ORIGIN: Final = re.compile(r"https?://[a-z0-9.\[\]:-]+")

OLLAMA_PORT = 11434


def _base_url(value: str) -> str:
    text = value.strip()
    parts = urlsplit(text if "//" in text else f"http://{text}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{value!r} is not an http(s) URL such as http://127.0.0.1:3101")
    return parts.geturl().rstrip("/")


def _ollama_url(value: str) -> str:
    """`OLLAMA_HOST` as Ollama itself reads it: the scheme and port may be missing, 0.0.0.0 means here."""
    url = urlsplit(_base_url(value))
    host = "127.0.0.1" if url.hostname == "0.0.0.0" else str(url.hostname)  # noqa: S104 - compared, not bound
    host = f"[{host}]" if ":" in host else host
    port = url.port or (443 if url.scheme == "https" else OLLAMA_PORT)
    return f"{url.scheme}://{host}:{port}{url.path}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _internal_token(secret: SecretStr) -> SecretStr:
    tokens = secret.get_secret_value().split()
    if len(tokens) not in (1, 2) or not all(INTERNAL_TOKEN.fullmatch(token) for token in tokens):
        raise ValueError("it takes 16 to 256 printable ASCII characters without spaces, or two such")
    return secret


def _split(value: str | tuple[str, ...]) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(part.strip() for part in parts if part.strip())


def _base_urls(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("at least one URL is needed")
    return tuple(_base_url(value) for value in values)


def _origins(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value != "*" and ORIGIN.fullmatch(value) is None:
            raise ValueError(f"{value!r} is no origin such as https://app.example.com")
    return values


def _redis_url(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("this is not a URL such as redis://127.0.0.1:6379")
    return secret


BaseUrl = Annotated[str, AfterValidator(_base_url)]
OllamaUrl = Annotated[str, AfterValidator(_ollama_url)]
BaseUrls = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_base_urls)]
"""One or several URLs, separated by commas in the environment."""
OllamaUrls = Annotated[tuple[OllamaUrl, ...], NoDecode, BeforeValidator(_split)]
"""None, one or several, separated by commas, each as `OLLAMA_HOST` is read."""
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
"""A Valkey or Redis. A secret, since a URL of one may hold its password."""
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_origins)]
"""None, one or several origins of web pages, separated by commas; `*` for any."""


class EnvironmentSettings(BaseSettings):
    """Settings from the environment, and from the files that `NAME_FILE` names."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the library's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, FileSettingsSource(settings_cls)


class DaemonSettings(EnvironmentSettings):
    """Frozen settings. Units stand in the names; `docs/settings.md` lists every one."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,  # an environment may hold secrets
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(ge=1, le=65535, description="Port to listen on.")
    log_level: LogLevel = Field("info", description="Least level that is logged.")
    body_bytes_max: int = Field(
        16 * 1024 * 1024, ge=1024, description="Largest request body, in bytes; beyond it the answer is 413."
    )
    drain_timeout_s: float = Field(
        20.0, ge=0, description="Seconds that requests in flight may take to finish after SIGTERM."
    )
    data: Path = Field(
        Path("data"), validation_alias="STILLHOUSE_DATA", description="Folder under which all data lives."
    )
    internal_token: Annotated[SecretStr, AfterValidator(_internal_token)] | None = Field(
        None,
        validation_alias="STILLHOUSE_INTERNAL_TOKEN",
        description="What our daemons show one another; with it, one that is asked past the gateway refuses. "
        "Of two, on a line each, the first is shown and both are accepted: so one follows the other.",
    )
    tls_certificate: FilePath | None = Field(
        None, description="PEM file of the certificate to serve HTTPS with, and those that vouch for it."
    )
    tls_key: FilePath | None = Field(None, description="PEM file of its key.")
    head_timeout_s: float = Field(
        10.0, gt=0, description="Seconds that the head of a request may take to come in; then it is closed."
    )
    body_timeout_s: float = Field(
        30.0, gt=0, description="Seconds within which another KiB of a request's body must come in."
    )
    connections_max: int = Field(
        4096, ge=1, description="Connections that may be open at once; further ones are turned away with 503."
    )
    otlp_endpoint: BaseUrl | None = Field(
        None,
        validation_alias="STILLHOUSE_OTLP_ENDPOINT",
        description="OpenTelemetry collector that gets traces by OTLP over HTTP, such as http://127.0.0.1:4318.",
    )
    trace_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        validation_alias="STILLHOUSE_TRACE_RATIO",
        description="Share of the traces that is recorded, where there is a collector.",
    )
    trace_queue_max: int = Field(
        2048,
        ge=1,
        validation_alias="STILLHOUSE_TRACE_QUEUE_MAX",
        description="Spans that may wait for the collector; beyond it the oldest are dropped.",
    )
    lifeline_fd: int | None = Field(
        None,
        validation_alias="STILLHOUSE_LIFELINE_FD",
        description="Set by the supervisor: a pipe whose closing means that it is gone.",
    )

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("a TLS certificate and its key go together; set both or neither")
        return self

    @property
    def internal_headers(self) -> dict[str, str]:
        """What a request to another of our daemons carries. Nobody else may be sent these."""
        return {INTERNAL_HEADER: self.internal_tokens[0]} if self.internal_tokens else {}

    @property
    def internal_tokens(self) -> tuple[str, ...]:
        """What is accepted of another of our daemons; the first is what we show."""
        token = self.internal_token
        return tuple(token.get_secret_value().split()) if token is not None else ()

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable of a field, given its name or its alias."""
        info = cls.model_fields.get(field)
        if info is None or isinstance(info.validation_alias, str):
            return str(info.validation_alias) if info is not None else field
        return f"{cls.model_config['env_prefix']}{field}".upper()
