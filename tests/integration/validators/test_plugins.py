"""Third parties' validators: one that works, one that breaks, and those that are refused at start."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas.errors import ErrorEnvelope
from schemas.verdicts import ValidatorList, Verdict
from tests.integration.validators.test_reload import write
from tests.processes import ROOT, running, started
from validators.app import SHIPPED_POLICY
from validators.backends import FakeRoster
from validators.engine import PluggedValidator, Policy, UnusableValidator, installed

TIMESHEET = """
class TimesheetValidator:
    kind = "timesheet"
    version = "1.2"
    codes = {
        "timesheet.too_many_hours": ("error", "More hours than a day has."),
        "timesheet.weekend": ("review", "Hours on a weekend."),
        "timesheet.worker_unknown": ("error", "No worker on the roster has this id."),
    }
    artifact_schema = {
        "type": "object",
        "properties": {"worker_id": {"type": "string"}, "hours": {"type": "number"}},
        "required": ["hours"],
    }
    context_schema = {
        "type": "object",
        "properties": {"hours_max": {"type": "number"}},
        "additionalProperties": False,
    }

    def check(self, artifact, context, roster):
        most = context.get("hours_max", 24)
        if artifact["hours"] > most:
            yield {
                "code": "timesheet.too_many_hours",
                "path": "/hours",
                "message": f"more than {most} hours",
                "fix": {"op": "replace", "path": "/hours", "value": most},
                "evidence": {"hours_max": most},
            }
        if "worker_id" in artifact and roster.find(artifact["worker_id"]) is None:
            yield {"code": "timesheet.worker_unknown", "path": "/worker_id", "message": "nobody has this id"}
        if artifact["hours"] < 0:
            raise ZeroDivisionError("secret text of the artifact")
        if artifact["hours"] == 13:
            yield {"code": "timesheet.unheard_of", "path": "", "message": "x"}
        if artifact["hours"] == 14:
            raise SystemExit(1)
"""


def install(folder: Path, name: str, source: str, entry: str = "TimesheetValidator") -> None:
    """Lay out a package as an installer would."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[stillhouse.validators]\nfirst = {name}:{entry}\n")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    return site


def environment(site: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{ROOT}:{site}"}


@pytest.mark.enable_socket
def test_a_third_partys_validator_serves(site: Path, tmp_path: Path) -> None:
    install(site, "acme_timesheets", TIMESHEET)
    roster = tmp_path / "roster.parquet"
    write(roster, "active")
    policy = tmp_path / "policy.toml"
    changed = '[severities]\n"timesheet.weekend" = "info"\n'
    policy.write_text(SHIPPED_POLICY.read_text().replace("[severities]\n", changed))
    env = environment(site) | {"VALIDATORS_ROSTER": str(roster), "VALIDATORS_POLICY": str(policy)}
    with (
        running("validators", tmp_path, env=env) as daemon,
        httpx.Client(base_url=daemon.url, trust_env=False, timeout=30.0) as client,
    ):

        def ask(artifact: Any, **context: Any) -> httpx.Response:
            body = {"kind": "timesheet", "artifact": artifact, "context": context}
            return client.post("/v1/validate", json=body)

        fine = Verdict.model_validate_json(ask({"hours": 8}).content)
        assert (fine.ok, fine.validator.name, fine.validator.version) == (
            True,
            "acme_timesheets.timesheet",
            "1.2",
        )
        assert fine.roster is None
        wrong = Verdict.model_validate_json(ask({"hours": 9, "worker_id": "W-2"}, hours_max=8).content)
        assert [(finding.code, finding.severity, finding.path) for finding in wrong.findings] == [
            ("timesheet.too_many_hours", "error", "/hours"),
            ("timesheet.worker_unknown", "error", "/worker_id"),
        ]
        assert wrong.roster is not None
        assert wrong.roster.rows == 1
        shape = Verdict.model_validate_json(ask({"hours": "8"}).content)
        assert [(finding.code, finding.path) for finding in shape.findings] == [("schema.invalid", "/hours")]
        assert ask("{").json()["findings"][0]["code"] == "schema.invalid"

        context = ask({"hours": 8}, hours_max="8")
        assert context.status_code == 400
        assert ErrorEnvelope.model_validate_json(context.content).error.param == "context.hours_max"

        for hours in (-1, 13, 14):  # it raises, it makes up a code, it tries to end the process
            broken = ask({"hours": hours})
            assert broken.status_code == 500
            error = ErrorEnvelope.model_validate_json(broken.content).error
            assert error.code == "validator_failed"
            assert "acme_timesheets" in error.message
            assert "secret" not in broken.text
        lines = '{"kind":"timesheet","artifact":{"hours":-1}}\n{"kind":"timesheet","artifact":{"hours":1}}\n'
        batch = client.post("/v1/validate/batch", content=lines).text.splitlines()
        assert [line.startswith('{"ok":true') for line in batch] == [False, True]

        listed = ValidatorList.model_validate_json(client.get("/v1/validators").content)
        described = {each.kind: each for each in listed.validators}["timesheet"]
        assert {code.code: code.severity for code in described.codes} == {
            "schema.invalid": "error",
            "timesheet.too_many_hours": "error",
            "timesheet.weekend": "info",  # as the policy has it
            "timesheet.worker_unknown": "error",
        }
        assert described.artifact_schema["required"] == ["hours"]
        assert "secret" not in daemon.text()


@pytest.mark.enable_socket
def test_a_daemon_with_an_unusable_validator_does_not_start(site: Path, tmp_path: Path) -> None:
    install(site, "acme_timesheets", TIMESHEET.replace('kind = "timesheet"', 'kind = "fill"'))
    with started("validators", tmp_path, env=environment(site)) as daemon:
        assert daemon.process.wait(30) == 1
        assert "`first` of acme_timesheets" in daemon.text()


@pytest.fixture
def on_path(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)
    yield site
    for name in set(sys.modules) - before:
        if name.startswith("acme_"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('kind = "timesheet"', 'kind = "fill"', "offers the kind `fill`, which stillhouse has already"),
        ('kind = "timesheet"', 'kind = "Time Sheet"', "`kind` is 'Time Sheet'"),
        ('kind = "timesheet"', "kind = 3", "`kind`"),
        ('version = "1.2"', "", "version"),
        ('version = "1.2"', 'version = "1 2"', "`version`"),
        ('"timesheet.weekend"', '"fill.underage"', "'fill.underage' does not begin with `timesheet.`"),
        ('"review"', '"fatal"', "`codes.timesheet.weekend.0`"),
        ('{"type": "number"}', '{"type": "numeral"}', "`artifact_schema` is no JSON Schema"),
        ("def check(", "def inspect(", "it has no `check`"),
        ("class ", "1 / 0\n\nclass ", "cannot be loaded: ZeroDivisionError"),
        ("class TimesheetValidator:", "class Other:", "cannot be loaded: AttributeError"),
    ],
)
def test_what_is_unusable_is_refused_by_name(on_path: Path, old: str, new: str, reason: str) -> None:
    assert old in TIMESHEET
    install(on_path, "acme_odd", TIMESHEET.replace(old, new))
    with pytest.raises(UnusableValidator) as refused:
        installed(["fill", "email"])
    assert reason in refused.value.message
    assert "the validator `first` of acme_odd" in refused.value.message


def test_two_that_offer_one_kind_are_refused(on_path: Path) -> None:
    install(on_path, "acme_one", TIMESHEET)
    install(on_path, "acme_two", TIMESHEET)
    with pytest.raises(
        UnusableValidator, match=r"of acme_two offers the kind `timesheet`, which .* of acme_one"
    ):
        installed(["fill"])


def test_the_example_of_the_page_works(on_path: Path) -> None:
    page = (ROOT / "docs" / "third-party-validators.md").read_text()
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert example is not None
    install(on_path, "acme_timesheets", example[1])
    (plugin,) = installed(["fill"])
    policy = Policy(SHIPPED_POLICY.read_bytes(), plugin.severities)
    roster = FakeRoster([], policy)
    validator = PluggedValidator(plugin, policy)
    checked = validator.check({"worker_id": "W-1", "hours": 9}, {"hours_max": 8}, lambda: roster)
    assert [(found.code, found.path) for found in checked.findings] == [
        ("timesheet.too_many_hours", "/hours"),
        ("timesheet.worker_unknown", "/worker_id"),
    ]
    assert checked.roster is roster
    short = validator.check({"worker_id": "W-1", "hours": 0.5}, {"hours_max": 8}, lambda: roster)
    assert [found.severity for found in short.findings] == ["warning", "error"]


def test_nothing_installed_is_fine() -> None:
    assert installed(["fill"]) == []
