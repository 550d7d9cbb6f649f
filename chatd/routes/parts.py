"""What the routes of `chatd` share: their parts, the caller's episode and policy, failures naming the run."""

import contextlib
from collections.abc import Generator
from typing import Annotated, Final

from fastapi import Depends, Header, Request
from starlette.exceptions import HTTPException

from chatd.engine import Dispatcher, Gate, Refiner, read_policy
from chatd.settings import Settings
from schemas.chat import GateSpec
from services import ids
from services.errors import InvalidRequest, PlatformError

EPISODE_HEADER: Final = "x-episode-id"
RUN_HEADER: Final = "x-run-id"
POLICY_HEADER: Final = "x-stillhouse-validate"


def _dispatcher(request: Request) -> Dispatcher:
    dispatcher: Dispatcher = request.state.dispatcher
    return dispatcher


def _refiner(request: Request) -> Refiner:
    refiner: Refiner = request.state.refiner
    return refiner


def _episode(x_episode_id: Annotated[str | None, Header()] = None) -> str | None:
    """The caller's episode. A malformed one is refused: replaced, it would link nothing."""
    if x_episode_id is not None and ids.REQUEST_ID.fullmatch(x_episode_id) is None:
        raise InvalidRequest(
            "`x-episode-id` has 1 to 128 characters of A-Z a-z 0-9 . _ -", param=EPISODE_HEADER
        )
    return x_episode_id


def _settings(request: Request) -> Settings:
    settings: Settings = request.state.settings
    return settings


def _gate(request: Request) -> Gate:
    gate: Gate = request.state.gate
    return gate


def _policy(request: Request) -> GateSpec | None:
    """The validation policy of the caller's key. Callers cannot send it: the gateway drops such headers."""
    return read_policy(request.headers.get(POLICY_HEADER))


SettingsDep = Annotated[Settings, Depends(_settings)]
DispatcherDep = Annotated[Dispatcher, Depends(_dispatcher)]
RefinerDep = Annotated[Refiner, Depends(_refiner)]
GateDep = Annotated[Gate, Depends(_gate)]
PolicyDep = Annotated[GateSpec | None, Depends(_policy)]
EpisodeDep = Annotated[str | None, Depends(_episode)]


def headers_of(run_id: str, episode_id: str | None) -> dict[str, str]:
    return {RUN_HEADER: run_id, **({EPISODE_HEADER: episode_id} if episode_id else {})}


@contextlib.contextmanager
def naming(headers: dict[str, str]) -> Generator[None]:
    """Let failures name the run too."""
    try:
        yield
    except PlatformError as error:
        raise HTTPException(error.status, headers=headers) from error
