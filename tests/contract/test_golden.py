"""The golden records, ids and schemas: what Python makes of them, and what a second runtime makes of them."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from distill.engine.identity import evidence_id_of
from schemas.canonical import canonical_bytes, content_id
from schemas.runs import Run
from tests.generate import MODELS, ROOT, SCHEMA_FOLDER, json_schema

GOLDEN = ROOT / "schemas" / "golden"
NODE = shutil.which("node")


def golden(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / name).read_text().split("\n") if line]


RECORDS = golden("records.jsonl")


@pytest.mark.parametrize("name", MODELS)
def test_the_json_schema_is_what_was_published(name: str) -> None:
    published = (SCHEMA_FOLDER / f"{name}.json").read_text()
    assert published == json_schema(name), "run `make docs` and commit the result"


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


@pytest.mark.skipif(NODE is None, reason="no Node.js here: the golden records are checked by Python alone")
def test_a_second_runtime_comes_to_the_same() -> None:
    assert NODE is not None
    script = Path(__file__).with_name("golden.mjs")
    run = subprocess.run(
        [NODE, script, ROOT / "schemas"], capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(run.stdout)
    keys = ("canonical", "sha256")
    assert found["canonical"] == [{key: one[key] for key in keys} for one in golden("canonical.jsonl")]
    assert found["evidence_ids"] == [one["evidence_id"] for one in golden("evidence_ids.jsonl")]
    named = [(one["name"], one["refused_by"]) for one in RECORDS]
    assert list(zip((one["name"] for one in RECORDS), found["refused_by"], strict=True)) == named
