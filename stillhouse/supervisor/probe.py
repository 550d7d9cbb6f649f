"""Asks a daemon whether it is ready, and Ollama whether it is there."""

from dataclasses import dataclass

import httpx
from pydantic import ValidationError

from services.health import ReadyState

PROBE_TIMEOUT_S = 3.0  # a daemon gives its own dependencies 1.5 s
OLLAMA_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Unready:
    """Why a daemon is not ready. `serves`: it answers, and says so itself."""

    reason: str
    serves: bool = False


def new_client() -> httpx.AsyncClient:
    """A client for our own processes: no proxy, short waits, and no look at whom a certificate is for.

    It is asked by its address on this machine, for which certificates are not made.
    """
    return httpx.AsyncClient(timeout=PROBE_TIMEOUT_S, trust_env=False, verify=False)  # noqa: S501 - see above


async def ask(client: httpx.AsyncClient, url: str) -> Unready | None:
    """None when the daemon at `url` is ready, otherwise why it is not."""
    try:
        response = await client.get(f"{url}/readyz")
    except httpx.ConnectError:
        return Unready("nothing listens there")
    except httpx.HTTPError as error:
        return Unready(f"does not answer ({type(error).__name__})")
    if response.is_success:
        return None
    return Unready(_reasons(response), serves=True)


def _reasons(response: httpx.Response) -> str:
    try:
        state = ReadyState.model_validate_json(response.content)
    except ValidationError:
        return f"answers {response.status_code} to /readyz"
    missing = [
        f"{name}: {dependency.reason}"
        for name, dependency in state.dependencies.items()
        if dependency.required and not dependency.ok
    ]
    return "; ".join(missing) or "is shutting down"


def ollama_answers(url: str) -> bool:
    """Whether an Ollama server, or one that speaks like it, answers there."""
    try:
        return httpx.get(f"{url}/api/version", timeout=OLLAMA_TIMEOUT_S, trust_env=False).is_success
    except httpx.HTTPError:
        return False
