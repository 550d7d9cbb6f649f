"""What a user types and what comes back: words, JSON, exit status."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from schemas.chat import GateSpec
from services.keys import DEFAULT_SCOPES, KeyStore
from services.testing import free_port
from tests.unit.stillhouse.conftest import StubGateway

ROOT = Path(__file__).parents[3]
Run = Callable[..., Result]


def verdict(*findings: dict[str, Any], name: str = "accepted") -> dict[str, Any]:
    return {
        "ok": name == "accepted",
        "verdict": name,
        "findings": list(findings),
        "kind": "fill",
        "validator": {"name": "fill", "version": "1", "policy_version": "1"},
        "elapsed_ms": 1.0,
    }


def job(state: str, progress: float, **more: Any) -> dict[str, Any]:
    return {"job_id": "j1", "stage": "export", "state": state, "progress": progress, **more}


def data() -> Path:
    return Path(os.environ["STILLHOUSE_DATA"])


# --- frame ------------------------------------------------------------------------------------


def test_help_lists_commands_and_examples(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in ("up", "status", "demo", "keys", "models", "validate", "distill"):
        assert command in result.output
    assert "Examples:" in result.output


@pytest.mark.parametrize("command", [["up"], ["validate"], ["distill"], ["keys", "create"]])
def test_commands_have_examples(run: Run, command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert f"stillhouse {' '.join(command)}" in result.output.split("Examples:")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["status", "--nonsense"],
        ["keys", "create"],
        ["up", "nonsense"],
        ["up", "--scale", "vectord=2"],
        ["up", "--scale", "distill=2"],
        ["up", "--scale", "embedd"],
        ["up", "--scale", "embedd=0"],
        ["up", "--scale", "embedd=17"],
        ["up", "gateway", "--scale", "embedd=2"],
        ["validate", "/nonexistent.json"],
        ["distill", "export"],
    ],
)
def test_wrong_usage_exits_with_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: stillhouse" in result.stderr
    assert result.stdout == ""


def test_refusals_of_up_give_the_reason(run: Run) -> None:
    assert "owns its data folder" in run("up", "--scale", "vectord=2").stderr
    assert "gateway, embedd, vectord" in run("up", "nonsense").stderr
    open_door = run("up", "gateway", "--host", "0.0.0.0")
    assert (open_door.exit_code, "keys create" in open_door.stderr) == (2, True)


def test_two_daemons_on_one_port_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDD_PORT", "3102")
    result = run("up", "embedd", "vectord")
    assert result.exit_code == 2
    assert "embedd and vectord would all listen on port 3102" in result.stderr


def test_a_wrong_variable_is_named_and_its_value_is_not(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDD_PORT", "secret")
    result = run("up")
    assert result.exit_code == 2
    assert "EMBEDD_PORT" in result.stderr
    assert "secret" not in result.stderr


def test_it_runs_as_a_process_from_anywhere(tmp_path: Path) -> None:
    """Through the module, without an installation, from a folder with a `schemas` of its own."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    result = subprocess.run(
        [sys.executable, "-P", "-m", "stillhouse", "keys", "list", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, json.loads(result.stdout)) == (0, []), result.stderr


def test_a_wheel_has_an_import_root_of_its_own(tmp_path: Path) -> None:
    """The layout that the build hook makes: generic names are importable by our processes alone."""
    package = tmp_path / "site" / "stillhouse"
    shutil.copytree(ROOT / "stillhouse", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("services", "schemas"):
        shutil.copytree(ROOT / name, package / "_root" / name)
    where = (
        "import stillhouse.root as r, importlib.util as u; print(r.import_root(), u.find_spec('services'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    # -S keeps an editable install of the checkout out of the way
    seen = subprocess.run(
        [sys.executable, "-S", "-P", "-c", where], env=environment, capture_output=True, text=True, check=True
    )
    assert seen.stdout.split() == [str(package / "_root"), "None"]
    listed = subprocess.run(
        [sys.executable, "-P", "-m", "stillhouse", "keys", "list"], env=environment, cwd=tmp_path, check=False
    )
    assert listed.returncode == 0


def test_the_version_is_printed(run: Run) -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("stillhouse ")


def test_a_defect_is_one_line_and_a_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gateway: StubGateway
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("met with Bearer sh-secretsecret")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("stillhouse.commands.models.print_json", broken)
    gateway.answers["GET /v1/models"] = [(200, {"data": []})]
    result = run("models", "--json")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    (file,) = tmp_path.glob("stillhouse-*.log")
    assert f"unexpected failure (ValueError), a defect of ours; {file} says where" in result.stderr
    told = file.read_text()
    assert "in broken" in told
    assert "sh-secret" not in told


def test_what_the_system_refuses_is_told_in_its_words(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "keys.json")

    monkeypatch.setattr("stillhouse.commands.keys.print_json", full)
    result = run("keys", "list", "--json")
    assert (result.exit_code, result.stderr) == (1, "stillhouse: keys.json: No space left on device\n")


def on_its_own(*command: str, stdout: int, **environment: str) -> tuple[int, bytes, bytes | None]:
    """As a process: its status, and what it said on stderr and, by a pipe, on stdout."""
    result = subprocess.run(
        [sys.executable, "-P", "-m", "stillhouse", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )
    return result.returncode, result.stderr, result.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [["--help"], ["keys", "list"]])
def test_a_full_disk_is_told_of(command: list[str], unbuffered: str) -> None:
    with Path("/dev/full").open("wb") as full:
        status, said, _ = on_its_own(*command, stdout=full.fileno(), PYTHONUNBUFFERED=unbuffered)
    assert (status, said) == (1, b"stillhouse: No space left on device\n")


def test_a_terminal_that_does_not_know_a_character_gets_another(run: Run) -> None:
    assert run("keys", "create", "--name", "laptop").exit_code == 0
    status, said, out = on_its_own("keys", "list", stdout=subprocess.PIPE, PYTHONIOENCODING="ascii")
    assert (status, said) == (0, b"")
    assert b"laptop" in (out or b"")


@pytest.mark.parametrize("command", [["--help"], ["keys", "list", "--json"]])
def test_who_stops_reading_is_told_nothing(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    status, said, _ = on_its_own(*command, stdout=writing)
    os.close(writing)
    assert (status, said) == (1, b"")


@pytest.mark.parametrize(
    "command",
    [
        ["distill", "compare", "one", "--html"],
        ["replay", "--model", "m", "--html"],
        ["distill", "drift", "--save-baseline"],
        ["vector", "bench", "docs", "--plot"],
        ["vector", "snapshot", "docs", "--to"],
    ],
)
def test_where_nothing_can_be_written_no_work_is_begun(
    run: Run, gateway: StubGateway, tmp_path: Path, command: list[str]
) -> None:
    result = run(*command, str(tmp_path / "nowhere" / "file"))
    assert result.exit_code == 2
    assert "is no folder that can be written to" in result.stderr
    assert not gateway.requests


# --- keys -------------------------------------------------------------------------------------


def test_a_key_is_made_shown_once_and_revoked(run: Run) -> None:
    made = run("keys", "create", "--name", "ci")
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert key.startswith("sh-")  # alone on stdout, so that it can be piped into a secret store
    record = KeyStore(data()).load().find(key)
    assert record is not None
    assert record.scopes == DEFAULT_SCOPES

    listed = run("keys", "list")
    assert "ci" in listed.stdout
    assert "active" in listed.stdout
    for secret in (key, key[3:11], record.sha256):
        assert secret not in listed.output
        assert secret not in run("keys", "list", "--json").output

    assert run("keys", "revoke", "ci").exit_code == 0
    assert json.loads(run("keys", "list", "--json").stdout)[0]["state"] == "revoked"
    again = run("keys", "revoke", "ci")
    assert again.exit_code == 1
    assert "revoked" in again.stderr


def test_everything_that_was_asked_for_is_recorded(run: Run) -> None:
    result = run(
        *("keys", "create", "--name", "x", "--json", "--rpm", "60", "--tpm", "1000", "--expires", "30d"),
        *("--scope", "chat", "--scope", "admin", "--scope", "chat", "--role", "welder", "--role", "CNA"),
        *("--gate", '{"kind":"email","context":{"audience":"worker"},"attempts_max":2}'),
    )
    assert result.exit_code == 0
    made = json.loads(result.stdout)
    record = KeyStore(data()).load().find(made["key"])
    assert record is not None
    assert (record.scopes, record.roles) == (("chat", "admin"), ("welder", "CNA"))
    assert (record.rpm, record.tpm) == (60, 1000)
    assert record.gate == GateSpec(kind="email", context={"audience": "worker"}, attempts_max=2)
    assert record.expires_at is not None
    assert round((record.expires_at - record.created_at).total_seconds() / 86400) == 30


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--scope", "vectors"], "vectors:read"),
        (["--role", "a,b"], "without commas"),
        (["--rpm", "0"], "--rpm"),
        (["--expires", "yesterday"], "30d"),
        (["--expires", "2001-01-01"], "future"),
        (["--gate", "email"], "--gate"),
        (["--gate", '{"kind":"email","colour":1}'], "--gate"),
        (["--gate", json.dumps({"kind": "email", "context": {"note": "x" * 9000}})], "8192"),
    ],
)
def test_wrong_keys_are_usage_errors(run: Run, options: list[str], hint: str) -> None:
    result = run("keys", "create", "--name", "ci", *options)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert len(KeyStore(data()).load()) == 0


def test_a_broken_key_file_is_reported(run: Run) -> None:
    store = KeyStore(data())
    store.path.parent.mkdir(parents=True)
    store.path.write_text("{")
    for command in (["list"], ["create", "--name", "ci"], ["revoke", "ci"]):
        result = run("keys", *command)
        assert result.exit_code == 1
        assert "keys.json" in result.stderr


# --- through the gateway ----------------------------------------------------------------------


def test_models_are_listed_with_the_key(
    run: Run, gateway: StubGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLHOUSE_API_KEY", "sh-abc")
    model = {"id": "ollama/llama3.2", "object": "model", "created": 1, "owned_by": "ollama"}
    gateway.answers["GET /v1/models"] = [(200, {"object": "list", "data": [model]})]
    assert "ollama/llama3.2" in run("models").stdout
    assert [entry["id"] for entry in json.loads(run("models", "--json").stdout)] == ["ollama/llama3.2"]
    assert gateway.requests[0][2]["authorization"] == "Bearer sh-abc"


def test_a_model_is_explained(run: Run, gateway: StubGateway) -> None:
    candidate = {
        "model": "one/m",
        "place": 1,
        "when": "first",
        "reason": "by the order of the alias",
        "circuit": "closed",
        "in_flight": 2,
        "waiting": 0,
        "concurrency_max": 8,
        "answers_in_ms": 12.5,
        "cost_max_usd": None,
    }
    told = {
        "model": "best",
        "alias": True,
        "strategy": "ordered",
        "candidates": [candidate],
        "attempts_max": 4,
        "hedge_first_token_ms": None,
        "cache": "off",
        "budget_left_usd": 1.5,
        "config_hash": "0" * 64,
    }
    gateway.answers["POST /v1/chat/explain"] = [(200, told)] * 2
    assert "one/m" in run("models", "explain", "best").stdout
    assert json.loads(run("models", "explain", "best", "--json").stdout)["candidates"][0]["place"] == 1


def test_the_gateways_own_words_are_passed_on(run: Run, gateway: StubGateway) -> None:
    error = {"message": "the key lacks the scope chat", "type": "permission_error", "code": "scope"}
    gateway.answers["GET /v1/models"] = [(403, {"error": error})]
    result = run("models")
    assert result.exit_code == 1
    assert "the key lacks the scope chat" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("`kind` is missing", "`kind` is missing\n"),
        ("something is missing", "something is missing (`kind`)\n"),
    ],
)
def test_the_field_at_fault_is_named_once(run: Run, gateway: StubGateway, message: str, said: str) -> None:
    error = {"message": message, "type": "invalid_request_error", "code": "invalid", "param": "kind"}
    gateway.answers["POST /v1/validate"] = [(400, {"error": error})]
    result = run("validate", "-", stdin="{}")
    assert result.exit_code == 2  # what was asked makes no sense, as with any wrong option
    assert result.stderr == f"stillhouse: {said}"


def test_a_run_id_that_no_record_may_have_is_a_usage_error(run: Run) -> None:
    result = run("validate", "-", "--run-id", "two words", stdin="{}")
    assert result.exit_code == 2
    assert "--run-id" in result.stderr


def test_who_needs_a_key_is_told_where_it_goes(run: Run, gateway: StubGateway) -> None:
    error = {"message": "a key is needed", "type": "authentication_error", "code": "missing_api_key"}
    gateway.answers["GET /v1/models"] = [(401, {"error": error})]
    assert "STILLHOUSE_API_KEY" in run("models").stderr


@pytest.mark.parametrize("key", ["sh-é", "sh-a b", "sh-a\nx: y"])
def test_what_is_no_key_is_not_sent(
    run: Run, gateway: StubGateway, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("STILLHOUSE_API_KEY", key)
    result = run("models")
    assert result.exit_code == 2
    assert "STILLHOUSE_API_KEY" in result.stderr
    assert key not in result.stderr
    assert not gateway.requests


@pytest.mark.parametrize("answer", [(200, ["not", "models"]), (502, "<html>")])
def test_something_else_than_a_gateway_is_noticed(run: Run, gateway: StubGateway, answer: Any) -> None:
    gateway.answers["GET /v1/models"] = [answer]
    result = run("models")
    assert result.exit_code == 1
    assert result.stderr.startswith("stillhouse: ")


@pytest.mark.enable_socket
def test_no_gateway_is_said_with_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_GATEWAY_URL", f"http://127.0.0.1:{free_port()}")
    result = run("models")
    assert result.exit_code == 1
    assert "stillhouse up" in result.stderr


def test_an_accepted_artifact_exits_with_0(run: Run, gateway: StubGateway, tmp_path: Path) -> None:
    gateway.answers["POST /v1/validate"] = [(200, verdict())]
    (tmp_path / "fill.json").write_text('{"order_id": 1')  # broken on purpose: that is the validator's to say
    (tmp_path / "context.json").write_text('{"order": {}}')
    result = run("validate", str(tmp_path / "fill.json"), "--context", str(tmp_path / "context.json"))
    assert result.exit_code == 0
    assert "fill: accepted, 0 findings" in result.stdout
    sent = gateway.requests[0][3]
    assert sent == {"kind": "fill", "artifact": '{"order_id": 1', "context": {"order": {}}}


def test_findings_are_shown_and_exit_with_1(run: Run, gateway: StubGateway) -> None:
    finding = {
        "code": "fill.cert_expired",
        "severity": "error",
        "path": "/fills/0",
        "message": "OSHA-10 [bold] ended",
    }
    gateway.answers["POST /v1/validate"] = [(200, verdict(finding, name="rejected"))]
    shown = run("validate", "-", "--kind", "fill", stdin="{}")
    assert shown.exit_code == 1
    for text in ("fill.cert_expired", "/fills/0", "OSHA-10 [bold] ended", "fill: rejected, 1 finding"):
        assert text in shown.stdout
    printed = run("validate", "-", "--json", stdin="{}")
    assert printed.exit_code == 1
    assert json.loads(printed.stdout)["findings"] == [finding]


@pytest.mark.parametrize("context", ["[]", "{", '{"a": NaN}'])
def test_a_context_that_is_no_object_is_a_usage_error(run: Run, tmp_path: Path, context: str) -> None:
    (tmp_path / "context.json").write_text(context)
    result = run("validate", "-", "--context", str(tmp_path / "context.json"), stdin="{}")
    assert result.exit_code == 2
    assert "--context" in result.stderr


def test_a_job_is_followed_to_its_end(run: Run, gateway: StubGateway) -> None:
    gateway.answers["POST /v1/distill/jobs"] = [(202, {"job_id": "j1"})]
    unavailable = {"message": "distill is starting", "type": "unavailable_error", "code": "down"}
    gateway.answers["GET /v1/distill/jobs/j1"] = [
        (200, job("running", 0.5)),
        (503, {"error": unavailable}),  # a daemon that is being restarted costs nobody their job
        (200, job("done", 1.0, counts={"in": 3, "out": 3}, dataset_id="d1")),
    ]
    result = run("distill", "export", "--kind", "sft", "--target", "openai")
    assert result.exit_code == 0
    assert gateway.requests[0][3] == {"stage": "export", "kind": "sft", "target": "openai"}
    assert "export: running, 50%" in result.stderr
    assert "export: done (in 3, out 3)" in result.stdout
    assert "dataset d1" in result.stdout


def test_an_interrupted_command_says_how_its_job_is_found_again(
    run: Run, gateway: StubGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stillhouse.commands.jobs.time.sleep", interrupted)
    gateway.answers["POST /v1/distill/jobs"] = [(202, {"job_id": "j1"})]
    gateway.answers["GET /v1/distill/jobs/j1"] = [(200, job("running", 0.5))]
    result = run("distill", "score")
    assert result.exit_code == 130
    assert "stillhouse distill jobs j1 --wait" in result.stderr


def test_an_index_is_asked_for_with_what_was_said_and_no_more(run: Run, gateway: StubGateway) -> None:
    gateway.answers["POST /v1/distill/jobs"] = [(202, {"job_id": "j1"})]
    gateway.answers["GET /v1/distill/jobs/j1"] = [(200, job("done", 1.0, counts={"in": 2, "sent": 2}))]
    assert run("distill", "index").exit_code == 0
    assert run("distill", "index", "--collection", "trial", "--pii", "phone=keep").exit_code == 0
    posted = [one[3] for one in gateway.requests if one[0] == "POST"]
    assert posted == [
        {"stage": "index"},
        {"stage": "index", "collection": "trial", "pii": {"phone": "keep"}},
    ]
    assert run("distill", "index", "--collection", "A B").exit_code == 2


def test_a_failed_job_exits_with_1(run: Run, gateway: StubGateway) -> None:
    gateway.answers["POST /v1/distill/jobs"] = [(202, {"job_id": "j1"})]
    error = {"message": "the disk is full", "type": "internal_error", "code": "disk_full"}
    gateway.answers["GET /v1/distill/jobs/j1"] = [(200, job("failed", 0.2, error=error))]
    result = run("distill", "score", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "disk_full"
    assert gateway.requests[0][3] == {"stage": "score"}


def test_a_distill_that_stays_away_is_given_up(
    run: Run, gateway: StubGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.commands.jobs.POLL_MAX_S", 0.01)
    gateway.answers["POST /v1/distill/jobs"] = [(202, {"job_id": "j1"})]
    unavailable = {"message": "distill does not answer", "type": "unavailable_error", "code": "down"}
    gateway.answers["GET /v1/distill/jobs/j1"] = [(503, {"error": unavailable})]
    result = run("distill", "materialize")
    assert result.exit_code == 1
    assert "distill does not answer" in result.stderr
