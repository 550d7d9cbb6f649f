"""The policy: a broken one is refused with a reason, and each verdict names the one that spoke."""

from collections.abc import Callable
from pathlib import Path

import pytest

from validators.app import SHIPPED_POLICY, create_app
from validators.engine import BrokenPolicy, Policy
from validators.engine.codes import CODES
from validators.settings import Settings


def edited(change: Callable[[str], str]) -> bytes:
    return change(SHIPPED_POLICY.read_text()).encode()


def test_the_version_names_the_bytes(policy: Policy) -> None:
    other = Policy(edited(lambda text: text + "# a remark\n"))
    assert policy.version.startswith("1.0+")
    assert policy.version != other.version


def test_every_code_has_a_severity_and_the_contracts_are_errors(policy: Policy) -> None:
    assert set(policy.severities) == set(CODES)
    weaker = {code for code, severity in policy.severities.items() if severity != "error"}
    assert weaker == {"email.line_too_long"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text + "\n[", "not valid TOML"),
        (lambda text: text.replace('"fill.underage" = "error"', ""), "lacks fill.underage"),
        (
            lambda text: text.replace('"fill.underage"', '"fill.undrage" = "error"\n"fill.underage"'),
            "do not exist",
        ),
        (lambda text: text.replace('"fill.underage" = "error"', '"fill.underage" = "bad"'), "fill.underage"),
        (lambda text: text.replace('region = "US"', 'region = "USA"'), "sms.region"),
        (lambda text: text.replace("'_{4,}'", "'_{4,40'"), ""),
        (lambda text: text.replace("'_{4,}'", "'(?<!a)b'"), "broken pattern"),
        (lambda text: text.replace('"El Paso, TX"', '"El Paso"'), "site_zones"),
        (lambda text: text.replace('"America/Adak"', '"America/Adac"'), "site_zones"),
        (lambda text: text.replace("travel_minutes = 0", "travel_minutes = -1"), "fill.travel_minutes"),
        (lambda text: text.replace("'_{4,}'", "'('"), "broken pattern"),
        (lambda text: text.replace("'_{4,}'", "'_*'"), "fits nothing"),
        (lambda text: text.replace("America/Boise", "America/Boys"), "states.ID.zone"),
        (lambda text: text.replace('["custodian"]', '["rn"]'), "`roles` lists 'rn'"),
        (lambda text: text.replace("[sms]", "[text]"), "sms"),
    ],
)
def test_a_broken_policy_refuses_the_start(tmp_path: Path, change: Callable[[str], str], reason: str) -> None:
    data = edited(change)
    if not reason:
        Policy(data)  # an odd pattern that is still one
        return
    path = tmp_path / "policy.toml"
    path.write_bytes(data)
    with pytest.raises(BrokenPolicy, match=reason):
        Policy(data)
    with pytest.raises(SystemExit, match=reason):
        create_app(Settings(policy=path))


def test_a_missing_policy_refuses_the_start(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="cannot start with the policy"):
        create_app(Settings(policy=tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("one", "other"),
    [("OH", "Ohio"), ("oh", " OHIO "), ("D.C.", "District of Columbia"), ("N.Y.", "new york")],
)
def test_states(policy: Policy, one: str, other: str) -> None:
    assert policy.state(one) == policy.state(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("St. Louis", "Saint Louis"),
        ("Ft Wayne", "FORT WAYNE"),
        ("NYC", "New York"),
        ("Cañon City", "Canon City"),
    ],
)
def test_cities(policy: Policy, one: str, other: str) -> None:
    assert policy.city(one) == policy.city(other)


@pytest.mark.parametrize(("one", "other"), [("Columbus", "Columbia"), ("Kansas City", "Arkansas City")])
def test_other_cities(policy: Policy, one: str, other: str) -> None:
    assert policy.city(one) != policy.city(other)
