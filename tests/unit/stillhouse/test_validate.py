"""`stillhouse validate`: one artifact or many, from a file or standard input; what is shown, how it exits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from stillhouse.commands import validate as command
from tests.unit.stillhouse.conftest import StubGateway

Run = Callable[..., Result]

FINDING = {
    "code": "fill.cert_expired",
    "severity": "error",
    "path": "/fills/0/worker_id",
    "message": "CPR ran out",
    "fix": {"op": "replace", "path": "/fills/0", "value": {"worker_id": "W-2"}},
}
REFUSED = {
    "error": {"message": "`kind` is not known here", "type": "invalid_request_error", "code": "unknown_kind"}
}


def verdict(*findings: dict[str, Any], name: str = "accepted", **more: Any) -> dict[str, Any]:
    return {
        "ok": name == "accepted",
        "verdict": name,
        "findings": list(findings),
        "kind": "fill",
        "validator": {"name": "stillhouse.fill", "version": "1.0", "policy_version": "1.0+abc"},
        "elapsed_ms": 1.0,
    } | more


@pytest.fixture
def lines(gateway: StubGateway, monkeypatch: pytest.MonkeyPatch) -> StubGateway:
    """The gateway, which takes and answers lines: each request is kept as a list of them."""

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        asked = [json.loads(line) for line in body.splitlines()]
        gateway.requests.append((method, path, headers, asked))
        return 200, b"".join(json.dumps(gateway.answers["line"].pop(0)[1]).encode() + b"\n" for _ in asked)

    monkeypatch.setattr(gateway, "answer", answer)
    return gateway


def test_what_a_verdict_rests_on_is_shown(run: Run, gateway: StubGateway) -> None:
    roster = {"sha256": "0" * 64, "as_of": "2026-11-22", "rows": 3}
    gateway.answers["POST /v1/validate"] = [(200, verdict(FINDING, name="rejected", roster=roster))]
    result = run("validate", "-", stdin="{}")
    assert result.exit_code == 1
    assert "replace" in result.stdout
    assert "fill: rejected, 1 finding (policy 1.0+abc, roster of 2026-11-22)" in result.stdout


def test_a_context_may_stand_on_the_command_line(run: Run, gateway: StubGateway) -> None:
    gateway.answers["POST /v1/validate"] = [(200, verdict())]
    assert (
        run("validate", "-", "--kind", "sms", "--context", ' {"opted_out": false}', stdin="{}").exit_code == 0
    )
    assert gateway.requests[0][3] == {"kind": "sms", "artifact": "{}", "context": {"opted_out": False}}


@pytest.mark.parametrize(
    "arguments",
    [
        ("validate", "-", "--context", "/nonexistent.json"),
        ("validate", "-", "--context", '{"a": '),
        ("validate", "/nonexistent.json"),
        ("validate", "-", "--batch", "--run-id", "r1"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments, stdin="{}")
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_file_that_is_no_text_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fill.json").write_bytes(b"\xff\xfe")
    assert run("validate", str(tmp_path / "fill.json")).exit_code == 2


def test_a_file_of_lines_is_a_batch(run: Run, lines: StubGateway, tmp_path: Path) -> None:
    lines.answers["line"] = [
        (200, verdict()),
        (200, verdict(FINDING, FINDING, name="rejected")),
        (200, REFUSED),
    ]
    asked: list[dict[str, Any]] = [
        {"artifact": {"a": 1}},
        {"kind": "sms", "artifact": "x", "context": {}},
        {"kind": "no", "artifact": 1},
    ]
    (tmp_path / "requests.ndjson").write_text(
        "\n".join(map(json.dumps, asked)).replace("\n", "\n\n", 1) + "\n"
    )
    result = run("validate", str(tmp_path / "requests.ndjson"), "--context", '{"b": 2}')
    assert result.exit_code == 1
    assert [request[1] for request in lines.requests] == ["/v1/validate/batch"]
    assert lines.requests[0][3] == [
        {"kind": "fill", "artifact": {"a": 1}, "context": {"b": 2}},
        *({"context": {"b": 2}} | request for request in asked[1:]),
    ]
    rows = result.stdout.splitlines()
    assert any("1" in row and "accepted" in row for row in rows)
    assert any("3" in row and "fill.cert_expired x2" in row for row in rows)  # the second line is blank
    assert any("4" in row and "refused" in row and "`kind` is not known here" in row for row in rows)
    assert "3 lines: 1 accepted, 1 refused, 1 rejected" in result.stdout


def test_lines_that_make_no_sense_fail_and_the_others_are_judged(run: Run, lines: StubGateway) -> None:
    lines.answers["line"] = [(200, verdict())]
    result = run("validate", "-", "--batch", "--json", stdin='{"artifact": 1}\nnope\n[1]\n{"kind": "fill"}\n')
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert [answer.get("verdict") or answer["error"]["code"] for answer in printed] == [
        "accepted",
        "invalid_json",
        "invalid_request",
        "invalid_request",
    ]
    assert len(lines.requests[0][3]) == 1


def test_a_batch_of_accepted_lines_exits_with_0_and_goes_in_parts(
    run: Run, lines: StubGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "CHUNK_LINES", 2)
    lines.answers["line"] = [(200, verdict()) for _ in range(5)]
    result = run("validate", "-", "--batch", stdin='{"artifact": 1}\n' * 5)
    assert result.exit_code == 0
    assert [len(request[3]) for request in lines.requests] == [2, 2, 1]
    assert "5 lines: 5 accepted" in result.stdout
    assert result.stderr.splitlines() == [f"judging 5 lines: {share}" for share in ("40%", "80%", "100%")]


def test_an_empty_batch_is_accepted_without_asking(run: Run) -> None:
    result = run("validate", "-", "--batch", stdin="\n")
    assert (result.exit_code, result.stdout) == (0, "0 lines\n")
