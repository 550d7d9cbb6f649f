"""The page about validators names every code and every key of the policy: none changes in silence."""

import re
from pathlib import Path

from validators.engine import Policy
from validators.engine.codes import CODES
from validators.engine.policy import PolicyFile

PAGE = Path(__file__).parents[3] / "docs" / "validators.md"


def test_the_page_lists_exactly_the_codes_with_their_severities_and_meanings(policy: Policy) -> None:
    rows = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| (\w+) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert {code: meaning for code, _, meaning in rows} == CODES
    assert {code: severity for code, severity, _ in rows} == policy.severities


def test_the_page_explains_every_key_of_the_policy() -> None:
    rows = set(re.findall(r"^\| `([a-z0-9_.]+)` \| [^|]*\|$", PAGE.read_text(), re.MULTILINE))
    schema = PolicyFile.model_json_schema()
    keys: set[str] = set()
    for name, field in schema["properties"].items():
        inner = schema["$defs"].get(field.get("$ref", "").rpartition("/")[2])
        keys |= {f"{name}.{key}" for key in inner["properties"]} if inner else {name}
    assert rows == keys
