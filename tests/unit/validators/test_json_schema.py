"""`json_schema`: one finding an error, with pointers; schemas that would cost too much are refused."""

import time
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from schemas.verdicts import Verdict
from services.errors import InvalidRequest, TooLarge
from validators.engine import JsonSchemaValidator, Policy

Judge = Callable[..., Verdict]

SCHEMA = {
    "type": "object",
    "properties": {"a/b": {"type": "integer"}, "m~n": {"type": "string", "pattern": "^x+$"}},
    "required": ["a/b"],
    "additionalProperties": False,
}


def test_valid(judge: Judge) -> None:
    verdict = judge("json_schema", {"a/b": 1, "m~n": "xx"}, schema=SCHEMA)
    assert (verdict.verdict, verdict.findings, verdict.roster) == ("accepted", [], None)


def test_each_error_is_a_finding_at_its_pointer(judge: Judge) -> None:
    verdict = judge("json_schema", {"a/b": "Jane", "m~n": "secret", "z": 1}, schema=SCHEMA)
    assert [(finding.code, finding.path) for finding in verdict.findings] == [
        ("schema.invalid", ""),
        ("schema.invalid", "/a~1b"),
        ("schema.invalid", "/m~0n"),
    ]
    assert verdict.verdict == "rejected"
    assert verdict.findings[1].evidence == {"keyword": "type", "schema_path": "/properties/a~1b/type"}
    told = " ".join(finding.message for finding in verdict.findings)
    assert "Jane" not in told
    assert "secret" not in told


def test_text_is_read_as_json(judge: Judge) -> None:
    assert judge("json_schema", '{"a/b": 1}', schema=SCHEMA).ok
    assert judge("json_schema", '"x"', schema={"type": "string"}).ok
    assert [f.path for f in judge("json_schema", "x", schema={"type": "string"}).findings] == [""]


def test_text_that_cannot_be_kept_is_told_in_our_words(judge: Judge) -> None:
    (finding,) = judge("json_schema", "9007199254740993", schema={}).findings
    assert finding.message.startswith("the artifact is not JSON that can be kept: integers beyond 2^53")


def test_no_more_findings_than_the_limit_and_one_that_says_so(judge: Judge) -> None:
    verdict = judge("json_schema", ["x"] * 60, schema={"items": {"type": "integer"}})
    assert len(verdict.findings) == 51
    assert "more than 50" in verdict.findings[0].message


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 5},
        {"$ref": "https://example.com/s.json"},
        {"$ref": "#/nowhere"},
        {"pattern": "(?=a)"},
        {"$schema": "urn:x"},
    ],
)
def test_a_schema_that_is_none_is_the_callers_mistake(judge: Judge, schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as error:
        judge("json_schema", 1, schema=schema)
    assert (error.value.param, error.value.code) == ("context.schema", "schema_unusable")


def test_a_schema_that_doubles_at_every_step_is_refused(judge: Judge) -> None:
    steps = {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(40)}
    with pytest.raises(InvalidRequest) as error:
        judge("json_schema", 1, schema={"$defs": steps | {"s40": {}}, "$ref": "#/$defs/s0"})
    assert error.value.code == "schema_too_costly"


def test_a_schema_that_refers_to_itself_serves(judge: Judge) -> None:
    tree = {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "n": {"type": "integer"}}}
    assert [f.path for f in judge("json_schema", {"left": {"right": {"n": "x"}}}, schema=tree).findings] == [
        "/left/right/n"
    ]


def nested(levels: int, leaf: Any) -> Any:
    for _ in range(levels):
        leaf = [leaf]
    return leaf


def test_a_recursive_schema_that_branches_does_not_take_for_ever(judge: Judge) -> None:
    twice = {"allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}], "type": ["array", "integer"]}
    assert judge("json_schema", nested(200, 1), schema=twice).ok
    assert [f.path for f in judge("json_schema", nested(200, "x"), schema=twice).findings] == [""]
    assert {f.path for f in judge("json_schema", nested(3, "x"), schema=twice).findings} == {"/0/0/0"}


@pytest.mark.parametrize("name", ["definitions", "default", "const"])
def test_a_property_may_be_named_as_a_keyword_and_still_counts(judge: Judge, name: str) -> None:
    steps = {
        f"s{n}": {"allOf": [{"properties": {name: {"$ref": f"#/$defs/s{n + 1}"}}}] * 2} for n in range(40)
    }
    with pytest.raises(InvalidRequest) as error:
        judge("json_schema", 1, schema={"$defs": steps | {"s40": {}}, "$ref": "#/$defs/s0"})
    assert error.value.code == "schema_too_costly"


def test_anchors_serve_and_ids_below_the_root_do_not(judge: Judge) -> None:
    anchored = {"$defs": {"a": {"$anchor": "n", "type": "integer"}}, "items": {"$ref": "#n"}}
    assert [f.path for f in judge("json_schema", [1, "x"], schema=anchored).findings] == ["/1"]
    with pytest.raises(InvalidRequest):
        judge("json_schema", 1, schema={"$defs": {"a": {"$id": "urn:a"}}})


def test_a_schema_beyond_the_limit_is_refused(judge: Judge) -> None:
    with pytest.raises(TooLarge):
        judge("json_schema", 1, schema={"enum": ["x" * 70_000]})


def test_patterns_cost_linear_time(judge: Judge) -> None:
    verdict = judge("json_schema", '"' + "a" * 20_000 + '!"', schema={"pattern": "^(a+)+$"})
    assert len(verdict.findings) == 1


@pytest.mark.parametrize("fan", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 3, 40])
def test_a_schema_that_comes_back_to_itself_on_one_value_is_refused(
    judge: Judge, fan: int, steps: int
) -> None:
    chain = {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{(n + 1) % steps}"}] * fan} for n in range(steps)}
    with pytest.raises(InvalidRequest) as error:
        judge("json_schema", 1, schema={"$defs": chain, "$ref": "#/$defs/s0"})
    assert error.value.param == "context.schema"


def test_a_property_without_a_name_keeps_its_place_in_the_pointer(judge: Judge) -> None:
    number = {"type": "integer"}
    schema = {"properties": {"": number, "a": {"properties": {"": {"properties": {"b": number}}}}}}
    verdict = judge("json_schema", {"": "x", "a": {"": {"b": "y"}}}, schema=schema)
    assert [finding.path for finding in verdict.findings] == ["/", "/a//b"]
    assert "y" not in verdict.findings[1].message.replace("type", "")


@pytest.mark.parametrize(
    ("artifact", "schema", "paths"),
    [
        ({"": {}}, {"properties": {"": {"required": [""]}}}, ["/"]),
        ({"a": {"": {}}}, {"properties": {"a": {"properties": {"": {"required": ["x"]}}}}}, ["/a/"]),
        (
            {"": {"": {}}},
            {
                "$defs": {"n": {"required": ["x"]}},
                "properties": {"": {"properties": {"": {"$ref": "#/$defs/n"}}}},
            },
            ["//"],
        ),
        (
            {"k": {"": {"k": {}}, "k": {"k": {}}}},
            {"properties": {"k": {"$ref": "#"}, "": {"$ref": "#"}}, "required": ["k"]},
            ["/k//k", "/k/k/k"],
        ),
        (
            {"": [1]},
            {"properties": {"": {"anyOf": [{"type": "string"}, {"items": {"type": "string"}}]}}},
            ["/"],
        ),
        (
            [{"": {}}],
            {"items": {"anyOf": [{"properties": {"": {"required": ["a"]}}}, {"type": "string"}]}},
            ["/0"],
        ),
    ],
)
def test_nameless_properties_in_odd_places(
    judge: Judge, artifact: Any, schema: dict[str, Any], paths: list[str]
) -> None:
    assert [finding.path for finding in judge("json_schema", artifact, schema=schema).findings] == paths


COSTLY: dict[str, tuple[Any, dict[str, Any]]] = {
    "one of many": (list(range(3000)), {"items": {"oneOf": [{"const": -n} for n in range(1, 300)]}}),
    "all of many": (list(range(1500)), {"allOf": [{"items": {"const": -1}}] * 300}),
    "a long enum": (list(range(3000)), {"items": {"enum": list(range(-8000, 0))}}),
    "many patterns": (
        {f"k{n}": 1 for n in range(3000)},
        {"patternProperties": {"k" + "." * n: {"not": {}} for n in range(99)}},
    ),
    "a long list of required keys": ([{}] * 3000, {"items": {"required": [f"k{n}" for n in range(500)]}}),
}


@pytest.mark.parametrize("case", COSTLY)
def test_errors_are_not_told_one_by_one_where_there_may_be_a_million(policy: Policy, case: str) -> None:
    artifact, schema = COSTLY[case]
    validator = JsonSchemaValidator(policy, schema_bytes_max=65536, expansion_max=10_000, findings_max=50)
    started = time.process_time()
    (finding,) = validator.check(artifact, {"schema": schema}, none).findings
    assert finding.path == ""
    assert time.process_time() - started < 2


def none() -> NoReturn:
    raise AssertionError("this kind needs no roster")


def test_a_large_artifact_that_meets_little_of_a_large_schema_is_checked(policy: Policy) -> None:
    names = [f"f{n}" for n in range(400)]
    schema: dict[str, Any] = {"items": {"properties": {name: {"type": "integer"} for name in names}}}
    artifact: list[Any] = [{names[n % 400]: n} for n in range(2000)]
    artifact[7] = {"f7": "x"}
    validator = JsonSchemaValidator(policy, schema_bytes_max=65536, expansion_max=10_000, findings_max=50)
    assert [f.path for f in validator.check(artifact, {"schema": schema}, none).findings] == ["/7/f7"]


def test_an_artifact_beyond_what_can_be_checked_in_time_is_refused(policy: Policy) -> None:
    validator = JsonSchemaValidator(policy, schema_bytes_max=65536, expansion_max=10_000, findings_max=50)
    schema: dict[str, Any] = {"items": {"oneOf": [{"const": n} for n in range(2000)]}}
    with pytest.raises(InvalidRequest) as error:
        validator.check([1] * 5000, {"schema": schema}, none)
    assert error.value.code == "schema_too_costly"
