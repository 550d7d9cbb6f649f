"""What the command line and the supervisor can be told, from the environment."""

import re
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from services.settings import BaseUrl, EnvironmentSettings, OllamaUrl

KEY: Final = re.compile(r"[!-~]+")


def _port(default: int, daemon: str) -> int:
    port: int = Field(
        default,
        ge=1,
        le=65535,
        validation_alias=f"{daemon.upper()}_PORT",
        description=f"Port of {daemon}; its replica i listens 100 * (i - 1) higher.",
    )
    return port


def _key(secret: SecretStr) -> SecretStr:
    key = secret.get_secret_value().strip()
    if KEY.fullmatch(key) is None:
        raise ValueError("a key is printable ASCII without spaces, as `stillhouse keys create` shows it")
    return SecretStr(key)


class CliSettings(EnvironmentSettings):
    """Frozen settings. Ports are the daemons' own variables, so that both sides read the same."""

    model_config = SettingsConfigDict(
        env_prefix="STILLHOUSE_",
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
    )

    data: Path = Field(Path("data"), description="Folder under which all data lives.")
    gateway_url: BaseUrl = Field("http://127.0.0.1:3100", description="The gateway that commands talk to.")
    api_key: Annotated[SecretStr, AfterValidator(_key)] | None = Field(
        None, description="Key that commands present to the gateway."
    )
    timeout_s: float = Field(60.0, gt=0, description="Seconds that one request to the gateway may take.")

    ready_patience_s: float = Field(
        10.0, gt=0, description="Seconds after which `up` says which daemons are not ready yet, and why."
    )
    stop_timeout_s: float = Field(
        30.0,  # a daemon's own drain (20 s) and some
        gt=0,
        description="Seconds after which `up` kills the daemons that have not stopped when asked to.",
    )
    lifeline_fd: int | None = Field(
        None, description="Set by whoever starts `up`: a pipe whose closing means that it is gone."
    )

    ollama_host: OllamaUrl = Field(
        "http://127.0.0.1:11434",
        validation_alias="OLLAMA_HOST",
        description="The Ollama server; `up` starts modeld when nothing answers there.",
    )
    gateway_host: str = Field(
        "127.0.0.1", validation_alias="GATEWAY_HOST", description="Address that the gateway listens on."
    )
    gateway_tls_certificate: Path | None = Field(
        None,
        validation_alias="GATEWAY_TLS_CERTIFICATE",
        description="Certificate of the gateway, which then serves HTTPS.",
    )
    gateway_port: int = _port(3100, "gateway")
    embedd_port: int = _port(3101, "embedd")
    vectord_port: int = _port(3102, "vectord")
    chatd_port: int = _port(3103, "chatd")
    distill_port: int = _port(3104, "distill")
    validators_port: int = _port(3105, "validators")
    modeld_port: int = _port(11435, "modeld")


def load_settings() -> CliSettings:
    """The settings of this process. Raises `typer.BadParameter` naming the variable that is wrong."""
    try:
        return CliSettings()
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        field = str(first["loc"][0])
        variable = field if field.isupper() else f"STILLHOUSE_{field.upper()}"
        raise typer.BadParameter(f"the environment variable {variable}: {first['msg']}") from None
