"""What others wrote is shown on the terminal, and moves nothing on it."""

from collections.abc import Callable

import pytest
from typer.testing import Result

from stillhouse.output import console
from tests.unit.stillhouse.conftest import StubGateway

Run = Callable[..., Result]

HOSTILE = "\x1b]0;owned\x07\x1b[2Jgone\r\u202eback\x9b31m"
COMMANDS = "\x1b\x07\r\u202e\x9b"


def test_a_refusal_of_the_gateway_moves_nothing(run: Run, gateway: StubGateway) -> None:
    told = {"error": {"message": HOSTILE, "type": "invalid_request_error", "code": "bad", "param": HOSTILE}}
    gateway.answers["POST /v1/validate"] = [(400, told)]
    result = run("validate", "-", stdin="{}")
    assert result.exit_code == 2
    assert "gone" in result.stderr
    assert not set(COMMANDS) & set(result.output + result.stderr)


def test_nor_does_what_a_verdict_quotes(run: Run, gateway: StubGateway) -> None:
    finding = {"code": "content.placeholder", "severity": "error", "path": "/body", "message": HOSTILE}
    verdict = {
        "ok": False,
        "verdict": "rejected",
        "findings": [finding],
        "kind": "sms",
        "validator": {"name": "stillhouse.sms", "version": "1.0", "policy_version": HOSTILE},
        "elapsed_ms": 1.0,
    }
    gateway.answers["POST /v1/validate"] = [(200, verdict)]
    result = run("validate", "-", stdin="{}")
    assert "gone" in result.stdout
    assert not set(COMMANDS) & set(result.output)


def test_lines_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    out = console()
    out.print("first\nsecond\tthird", style="bold")
    assert capsys.readouterr().out.splitlines()[0] == "first"
