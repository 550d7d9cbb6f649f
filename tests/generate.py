"""Writes the pages that are made from the code, `docs/settings.md` and `docs/openapi/`: `make docs`."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic_core import PydanticUndefined, to_jsonable_python
from pydantic_settings import BaseSettings

from services.settings import DaemonSettings
from stillhouse.settings import CliSettings

ROOT: Final = Path(__file__).parent.parent
DAEMONS: Final = ("gateway", "embedd", "vectord", "chatd", "distill", "validators", "modeld")
SETTINGS_PAGE: Final = ROOT / "docs" / "settings.md"
OPENAPI_FOLDER: Final = ROOT / "docs" / "openapi"

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


def main() -> None:
    SETTINGS_PAGE.write_text(settings_page())
    OPENAPI_FOLDER.mkdir(parents=True, exist_ok=True)
    for daemon in DAEMONS:
        (OPENAPI_FOLDER / f"{daemon}.json").write_text(openapi(daemon, Path("data")))
    print(f"wrote {SETTINGS_PAGE.relative_to(ROOT)} and {OPENAPI_FOLDER.relative_to(ROOT)}/")


if __name__ == "__main__":
    main()
