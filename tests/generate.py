"""Writes what is made from the code (`make docs`): settings, OpenAPI, and the records in three forms."""

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python
from pydantic_settings import BaseSettings

from schemas import artifacts, evidence, proof, replay, review, runs
from schemas.records import Record
from services.settings import DaemonSettings
from stillhouse.settings import CliSettings
from tests.second_runtime import run_node

ROOT: Final = Path(__file__).parent.parent
DAEMONS: Final = ("gateway", "embedd", "vectord", "chatd", "distill", "validators", "modeld")
SETTINGS_PAGE: Final = ROOT / "docs" / "settings.md"
OPENAPI_FOLDER: Final = ROOT / "docs" / "openapi"
SCHEMA_FOLDER: Final = ROOT / "schemas" / "json"
RECORDS_FOLDER: Final = ROOT / "docs" / "records"
GOLDEN_RECORDS: Final = ROOT / "schemas" / "golden" / "records.jsonl"
TYPES_PAGE: Final = ROOT / "schemas" / "typescript" / "records.ts"

RECORDS: Final[tuple[type[Record], ...]] = (
    runs.Run,
    runs.VerdictRecord,
    runs.Feedback,
    evidence.Evidence,
    evidence.Scored,
    evidence.RagSample,
    evidence.SftSample,
    evidence.PreferenceSample,
    evidence.Provenance,
    evidence.Quarantined,
    review.Review,
    proof.Receipt,
    proof.Audit,
    replay.Replay,
    replay.Drift,
)
MODELS: Final[dict[str, type[BaseModel]]] = {
    **{record.schema_id: record for record in RECORDS},
    "stillhouse.fill_proposal": artifacts.FillProposal,
    "stillhouse.email_draft": artifacts.EmailDraft,
    "stillhouse.sms_draft": artifacts.SmsDraft,
    "stillhouse.job_order": artifacts.JobOrder,
    "stillhouse.worker": artifacts.Worker,
}
"""Every record and artifact, by the name of its schema."""

INTRODUCTION: Final = """\
# Settings

Every setting is an environment variable. Units stand in the names: `_bytes`, `_s` (seconds), `_ms`, `_max`.
A wrong value ends the daemon with status 2 and a line that names the variable. This page is made from the
code by `make docs`.

The variables under *every daemon* exist once for each, with the daemon's own prefix (`GATEWAY_HOST`,
`EMBEDD_HOST` …), except for those that begin with `STILLHOUSE_`, which all share.
"""


def settings_type(daemon: str) -> type[DaemonSettings]:
    kind: type[DaemonSettings] = importlib.import_module(f"{daemon}.settings").Settings
    return kind


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "–"
    if value is None:
        return "none"
    plain = to_jsonable_python(value)
    if isinstance(plain, list):
        plain = ",".join(map(str, plain))
    return f"`{plain}`" if plain != "" else "empty"


def _rows(kind: type[BaseSettings], *, leave_out: frozenset[str]) -> Iterator[str]:
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for name, field in kind.model_fields.items():
        if name in leave_out:
            continue
        alias = field.validation_alias
        prefix = kind.model_config.get("env_prefix", "")
        variable = alias if isinstance(alias, str) else f"{prefix}{name}".upper()
        yield f"| `{variable}` | {_default(field.default)} | {field.description} |"


def settings_page() -> str:
    """The whole of `docs/settings.md`."""
    lines = [INTRODUCTION, "## every daemon", ""]
    common = frozenset(DaemonSettings.model_fields)

    class Any_(DaemonSettings):  # noqa: N801 - stands for any daemon's prefix
        model_config = {"env_prefix": "<DAEMON>_"}  # noqa: RUF012 - pydantic's own convention

    lines += _rows(Any_, leave_out=frozenset({"port"}))
    for daemon in DAEMONS:
        kind = settings_type(daemon)
        same = frozenset(
            name
            for name in common
            if kind.model_fields[name].default == DaemonSettings.model_fields[name].default
        )
        lines += ["", f"## {daemon}", "", *_rows(kind, leave_out=same)]
    lines += ["", "## stillhouse (the command line)", "", *_rows(CliSettings, leave_out=frozenset())]
    return "\n".join(lines) + "\n"


def openapi(daemon: str, data: Path) -> str:
    """A daemon's OpenAPI document, as it answers it."""
    app = importlib.import_module(f"{daemon}.app").create_app(settings_type(daemon)(data=data))
    return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def json_schema(name: str) -> str:
    """The JSON Schema (2020-12) of a record or an artifact, for readers in other languages."""
    kind = MODELS[name]
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **kind.model_json_schema()}
    if issubclass(kind, Record):
        # Said by code in Python: that a record is what its name says, and which major this describes.
        schema["properties"]["schema"] = {"const": name}
        schema["properties"]["schema_version"]["pattern"] = r"^1\.[0-9]+$"
        schema["required"] = ["schema", "schema_version", *schema["required"]]
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def record_page(name: str) -> str:
    """A page of the manual for one record or artifact: its fields, and a line as it may be written."""
    schema = json.loads(json_schema(name))
    definitions = schema.pop("$defs", {})
    lines = [f"# {name}", "", *_described(schema)]
    for title in sorted(definitions):
        if "properties" in definitions[title]:
            lines += ["", f"## {title}", "", *_described(definitions[title])]
    lines += ["", "## Example", "", "```json", _example(name), "```", "", "This page is made by `make docs`."]
    return "\n".join(lines) + "\n"


def _described(schema: dict[str, Any]) -> Iterator[str]:
    if about := schema.get("description"):
        yield from (about, "")
    yield "| field | type | |"
    yield "|---|---|---|"
    required = schema.get("required", [])
    for field, shape in schema["properties"].items():
        said = " ".join(filter(None, ("required" if field in required else "", shape.get("description", ""))))
        yield f"| `{field}` | {_type(shape)} | {said} |"


def _type(shape: dict[str, Any]) -> str:
    """The type of a field in words, such as `list of string or null`."""
    if "$ref" in shape:
        return str(shape["$ref"]).rpartition("/")[2]
    if "anyOf" in shape:
        return " or ".join(dict.fromkeys(map(_type, shape["anyOf"])))
    if "enum" in shape or "const" in shape:
        return " or ".join(f"`{value}`" for value in shape.get("enum", [shape.get("const")]))
    kind = str(shape.get("format") or shape.get("type") or "any JSON")
    if kind == "array" and "items" in shape:
        return f"list of {_type(shape['items'])}"
    if kind == "object" and isinstance(values := shape.get("additionalProperties"), dict):
        return f"object of {_type(values)}"
    return kind


def _example(name: str) -> str:
    """The longest of the golden records that every reader takes."""
    vectors = [json.loads(line) for line in GOLDEN_RECORDS.read_text().split("\n") if line]
    good = (one["record"] for one in vectors if one["schema"] == name and one["refused_by"] is None)
    return max((json.dumps(record, indent=1, ensure_ascii=False) for record in good), key=len)


def typescript() -> str:
    """TypeScript types of every record and artifact, made from the published JSON Schemas. Needs Node.js."""
    return run_node("types.mjs", SCHEMA_FOLDER)


def main() -> None:
    SETTINGS_PAGE.write_text(settings_page())
    OPENAPI_FOLDER.mkdir(parents=True, exist_ok=True)
    for daemon in DAEMONS:
        (OPENAPI_FOLDER / f"{daemon}.json").write_text(openapi(daemon, Path("data")))
    SCHEMA_FOLDER.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        (SCHEMA_FOLDER / f"{name}.json").write_text(json_schema(name))
    RECORDS_FOLDER.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        (RECORDS_FOLDER / f"{name.removeprefix('stillhouse.')}.md").write_text(record_page(name))
    if shutil.which("node") is None:
        print("no Node.js here: the TypeScript types were left as they are")
    else:
        TYPES_PAGE.parent.mkdir(exist_ok=True)
        TYPES_PAGE.write_text(typescript())
    folders = (SETTINGS_PAGE, OPENAPI_FOLDER, SCHEMA_FOLDER, RECORDS_FOLDER, TYPES_PAGE)
    print("wrote", ", ".join(str(folder.relative_to(ROOT)) for folder in folders))


if __name__ == "__main__":
    main()
