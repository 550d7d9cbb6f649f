"""Reads the part of a Docker Compose file that says what runs, and with which environment."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from dotenv import dotenv_values
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from services.errors import InvalidRequest

VARIABLE: Final = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:(:?[-?])([^{}]*))?\}|)")
"""`$$`, `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}`; or a `$` that is none of these."""


def _items(value: object) -> object:
    """`["A=1"]` as the mapping that it means."""
    if not isinstance(value, list):
        return value
    pairs = (str(item).partition("=") for item in value)
    return {name: text if sign else None for name, sign, text in pairs}


def _text(value: object) -> object:
    """A number or a truth as the text that a container would get."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Variables = Annotated[dict[str, Annotated[str, BeforeValidator(_text)]], BeforeValidator(_items)]
Mount = Annotated[str, StringConstraints(pattern=r"^[^:]+:/[^:]*(:[a-z,]+)?$")]
"""`SOURCE:TARGET[:MODE]`."""
Port = Annotated[str, StringConstraints(pattern=r"^((\[[0-9a-f:]+\]|[0-9.]+):\d+:|\d+:)?\d+(/tcp)?$")]
"""`[[ADDRESS:]PUBLISHED:]PORT`."""


CONTAINERS_ALONE: Final = frozenset(
    {
        "cap_drop",
        "container_name",
        "depends_on",
        "healthcheck",
        "hostname",
        "image",
        "init",
        "labels",
        "logging",
        "networks",
        "pull_policy",
        "read_only",
        "restart",
        "security_opt",
        "stop_grace_period",
        "tmpfs",
    }
)
"""Keys of a service that change nothing for a process."""
TOP_LEVEL: Final = frozenset({"name", "services", "networks", "volumes", "secrets"})


class Part(BaseModel):
    """A part of the file. Other keys in it are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Build(Part):
    args: Variables = {}


class Deploy(Part):
    replicas: Annotated[int, Field(ge=0)] = 1


class Service(Part):
    model_config = ConfigDict(extra="allow")

    build: Build = Build()
    environment: Variables = {}
    volumes: list[Mount] = []
    ports: list[Port] = []
    secrets: list[str] = []
    profiles: list[str] = []
    deploy: Deploy = Deploy()

    @property
    def foreign(self) -> list[str]:
        """Its keys of which nobody knows here what they would change for a process."""
        return [
            key for key in self.model_extra or () if key not in CONTAINERS_ALONE and not key.startswith("x-")
        ]


class Secret(Part):
    file: Path


class ComposeFile(Part):
    """What was read. `profiles` are those that are on."""

    services: dict[str, Service]
    secrets: dict[str, Secret] = {}
    profiles: frozenset[str] = frozenset()

    def is_on(self, name: str) -> bool:
        """Whether a service belongs to no profile, or to one that is on."""
        profiles = self.services[name].profiles
        return not profiles or not self.profiles.isdisjoint(profiles)


def read_compose(path: Path, environment: Mapping[str, str], *, profiles: Sequence[str] = ()) -> ComposeFile:
    """The file, its variables filled in from the environment and, after that, from the `.env` beside it.

    Profiles that are on are `profiles` and those in `COMPOSE_PROFILES`. Raises `InvalidRequest` for a file
    that cannot be read, is not what Compose takes, or has more than is understood here.
    """
    try:
        variables = {**_dotenv(path.parent), **environment}
        content = yaml.safe_load(path.read_text())
        if not isinstance(content, dict):
            raise InvalidRequest(f"{path} holds no services")
        found = ComposeFile.model_validate(_filled(content, variables))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"{path}: `{where}`: {first['msg']}") from None
    if foreign := [key for key in content if key not in TOP_LEVEL and not str(key).startswith("x-")]:
        raise InvalidRequest(f"{path}: `{foreign[0]}` is not understood here; there are {_named(TOP_LEVEL)}")
    known = {profile for service in found.services.values() for profile in service.profiles}
    if unknown := [profile for profile in profiles if profile not in known]:
        raise InvalidRequest(f"{path} has no profile {unknown[0]!r}; there are {_named(known) or 'none'}")
    on = {*profiles, *variables.get("COMPOSE_PROFILES", "").split(",")} - {""}
    return found.model_copy(update={"profiles": frozenset(on)})


def _named(keys: Iterable[str]) -> str:
    return ", ".join(sorted(keys))


def _dotenv(folder: Path) -> dict[str, str]:
    values = dotenv_values(folder / ".env", interpolate=False)
    return {name: value for name, value in values.items() if value is not None}


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    """The same with every variable in its strings filled in."""
    if isinstance(value, str):
        return VARIABLE.sub(lambda match: _value(match, variables), value)
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, variables) for key, item in value.items()}
    return value


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str:
    dollar, plain, braced, operator, operand = match.groups(default="")
    if dollar:
        return "$"
    name = plain or braced
    if not name:
        raise InvalidRequest(
            f"a `$` that begins no variable in {match.string!r}: variables are ${{NAME}} and"
            " ${NAME:-default}, and a `$` itself is `$$`"
        )
    value = variables.get(name)
    if value is None or (not value and operator.startswith(":")):
        if operator.endswith("?"):
            raise InvalidRequest(f"the variable {name} is needed: {operand}")
        return operand
    return value
