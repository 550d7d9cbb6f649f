"""Whatever is sent to a daemon, it answers as its OpenAPI says, and never by a failure of its own.

`FUZZ_EXAMPLES` asks for more than the same few of each run, and for others every time: `make fuzz` does.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import CheckFunction
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.generate import DAEMONS
from tests.processes import Running, running

IN_DEPTH: Final = "FUZZ_EXAMPLES" in os.environ
EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "6"))
"""For a route and kind of request."""

pytestmark = [pytest.mark.enable_socket, pytest.mark.timeout(3600 if IN_DEPTH else 300)]

NOT_OURS: Final = {502, 503, 504}
"""Failures of what stands behind a daemon, which the envelope tells of."""

Operation = APIOperation[Any, Any, Any, Any]

CHECKS: Final[list[CheckFunction]] = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """Every daemon, with all that it needs."""
    folder = tmp_path_factory.mktemp("house")
    with ExitStack() as stack:
        stub = stack.enter_context(running("tests.bench.ollama_stub", folder))
        env = {"OLLAMA_HOST": stub.url, "STILLHOUSE_DATA": str(folder / "data")}
        found: dict[str, Running] = {}
        for name in ("embedd", "validators", "distill", "vectord", "chatd", "modeld", "gateway"):
            found[name] = stack.enter_context(running(name, folder, env=env))
            env |= {
                f"{asker}_{name.upper()}_{kind}": found[name].url
                for asker, kind in (
                    ("GATEWAY", "URLS"),
                    ("VECTORD", "URL"),
                    ("CHATD", "URL"),
                    ("DISTILL", "URL"),
                )
            }
        yield found


@schemathesis.serializer("application/x-ndjson", "application/zip")
def as_it_is(_: object, value: object) -> bytes:
    """Bodies that are no JSON: what was drawn for one, as text."""
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("daemon", DAEMONS)
def test_answers_are_as_declared(house: dict[str, Running], daemon: str, mode: GenerationMode) -> None:
    url = house[daemon].url
    operations = operations_of(f"{url}/openapi.json")
    faults = [
        fault
        for operation in operations
        if operation.body or mode is GenerationMode.POSITIVE  # without a body there is little to get wrong
        if (fault := fault_of(operation, url, mode)) is not None
    ]
    assert house[daemon].process.poll() is None
    assert not faults, "\n\n".join(faults)


def operations_of(url: str) -> list[Operation]:
    results = list(schemathesis.openapi.from_url(url).get_all_operations())
    return [result.ok() for result in results if isinstance(result, Ok)]


def fault_of(operation: Operation, url: str, mode: GenerationMode) -> str | None:
    """What an operation answered otherwise than it declares, if anything."""

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        derandomize=not IN_DEPTH,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case[Any]) -> None:
        response: Response = case.call(base_url=url, timeout=60)
        assert response.status_code < 500 or response.status_code in NOT_OURS, response.text
        case.validate_response(response, checks=CHECKS)

    try:
        ask()
    except Unsatisfiable:  # nothing that could be said would be wrong
        return None
    except BaseException as error:  # noqa: BLE001 - told with those of the other operations
        return f"{operation.label}: {error}"
    return None
