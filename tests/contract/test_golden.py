"""The golden records, ids and schemas: what Python makes of them, and what a second runtime makes of them."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from distill.engine.identity import evidence_id_of
from schemas.canonical import canonical_bytes, content_id
from schemas.runs import Run
from tests.generate import (
    MODELS,
    RECORDS_FOLDER,
    ROOT,
    SCHEMA_FOLDER,
    TYPES_PAGE,
    json_schema,
    record_page,
    typescript,
)
from tests.second_runtime import require_node, run_node, run_tsc

GOLDEN = ROOT / "schemas" / "golden"


def golden(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / name).read_text().split("\n") if line]


RECORDS = golden("records.jsonl")


@pytest.mark.parametrize("name", MODELS)
def test_the_json_schema_is_what_was_published(name: str) -> None:
    published = (SCHEMA_FOLDER / f"{name}.json").read_text()
    assert published == json_schema(name), "run `make docs` and commit the result"


@pytest.mark.parametrize("name", MODELS)
def test_the_page_is_what_was_published(name: str) -> None:
    page = (RECORDS_FOLDER / f"{name.removeprefix('stillhouse.')}.md").read_text()
    assert page == record_page(name), "run `make docs` and commit the result"


def test_every_schema_has_a_record_that_it_takes_and_every_file_a_schema() -> None:
    assert {vector["schema"] for vector in RECORDS if vector["refused_by"] is None} == set(MODELS)
    assert {path.stem for path in SCHEMA_FOLDER.iterdir()} == set(MODELS)


@pytest.mark.parametrize("vector", RECORDS, ids=lambda vector: f"{vector['schema']}: {vector['name']}")
def test_models_and_schemas_take_the_same_records(vector: dict[str, Any]) -> None:
    record, refused_by = vector["record"], vector["refused_by"]
    try:
        MODELS[vector["schema"]].model_validate(record)
    except ValidationError:
        assert refused_by is not None
    else:
        assert refused_by is None
    schema = json.loads((SCHEMA_FOLDER / f"{vector['schema']}.json").read_text())
    reader = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    assert reader.is_valid(record) == (refused_by != "schema")


@pytest.mark.parametrize("vector", golden("canonical.jsonl"), ids=lambda vector: vector["name"])
def test_canonical_bytes(vector: dict[str, Any]) -> None:
    assert canonical_bytes(vector["value"]).decode() == vector["canonical"]
    assert content_id(vector["value"]) == vector["sha256"]


@pytest.mark.parametrize("vector", golden("evidence_ids.jsonl"), ids=lambda vector: vector["name"])
def test_evidence_ids(vector: dict[str, Any]) -> None:
    assert evidence_id_of(Run.model_validate(vector["run"])) == vector["evidence_id"]


def test_a_second_runtime_comes_to_the_same() -> None:
    require_node()
    found = json.loads(run_node("golden.mjs", ROOT / "schemas"))
    keys = ("canonical", "sha256")
    assert found["canonical"] == [{key: one[key] for key in keys} for one in golden("canonical.jsonl")]
    assert found["evidence_ids"] == [one["evidence_id"] for one in golden("evidence_ids.jsonl")]
    named = [(one["name"], one["refused_by"]) for one in RECORDS]
    assert list(zip((one["name"] for one in RECORDS), found["refused_by"], strict=True)) == named


def test_typescript_has_the_types_and_takes_the_records(tmp_path: Path) -> None:
    require_node()
    assert TYPES_PAGE.read_text() == typescript(), "run `make docs` and commit the result"
    good = [vector for vector in RECORDS if vector["refused_by"] is None]
    lines = [
        f'const r{at}: Records["{vector["schema"]}"] = {json.dumps(vector["record"])};'
        for at, vector in enumerate(good)
        if vector["record"].get("schema_version", "1.0") == "1.0"  # a newer minor has fields that types lack
    ]
    program = tmp_path / "records_are_typed.ts"
    program.write_text("\n".join([f'import type {{ Records }} from "{TYPES_PAGE.with_suffix("")}";', *lines]))
    run_tsc(TYPES_PAGE, program)
