"""What the routes of `chatd` share: their parts, the caller's episode and policy, failures naming the run."""

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import Annotated, Final

from fastapi import Depends, Header, Request
from starlette.exceptions import HTTPException

from chatd.engine import Refiner, read_policy
from schemas.chat import GateSpec
from services import ids
from services.errors import InvalidRequest, PlatformError

EPISODE_HEADER: Final = "x-episode-id"
RUN_HEADER: Final = "x-run-id"
POLICY_HEADER: Final = "x-stillhouse-validate"


def _refiner(request: Request) -> Refiner:
    refiner: Refiner = request.state.refiner
    return refiner


def episode_of(said: str | None) -> str | None:
    """The caller's episode. A malformed one is refused: replaced, it would link nothing."""
    if said is not None and ids.REQUEST_ID.fullmatch(said) is None:
        raise InvalidRequest(
            "`x-episode-id` has 1 to 128 characters of A-Z a-z 0-9 . _ -", param=EPISODE_HEADER
        )
    return said


def _episode(x_episode_id: Annotated[str | None, Header()] = None) -> str | None:
    return episode_of(x_episode_id)


def _policy(request: Request) -> GateSpec | None:
    """The validation policy of the caller's key. Callers cannot send it: the gateway drops such headers."""
    return read_policy(request.headers.get(POLICY_HEADER))


RefinerDep = Annotated[Refiner, Depends(_refiner)]
PolicyDep = Annotated[GateSpec | None, Depends(_policy)]
EpisodeDep = Annotated[str | None, Depends(_episode)]


@contextlib.contextmanager
def naming(headers: Callable[[], Mapping[str, str]]) -> Generator[None]:
    """Let failures name the run too, with the headers as they are when one happens."""
    try:
        yield
    except PlatformError as error:
        raise HTTPException(error.status, headers=dict(headers())) from error
