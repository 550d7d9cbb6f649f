"""What every record carries: its schema's name and version, and room for what newer writers add."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from schemas.base import JsonObject, Model

VERSION: Final = "1.0"

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes a record of one major into one of the next; it is given a copy, and leaves the version alone."""


class Record(Model):
    """A line of JSONL. Readers take any minor of their major, upcast older majors, refuse newer ones by name.

    Lines stay as they were written; what reads them sees the newest major alone. Fields that a newer minor
    added are kept in `ext`, so that nothing a writer said is lost.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)
    schema_id: ClassVar[str]
    version: ClassVar[str] = VERSION
    upcasters: ClassVar[Mapping[int, Upcaster]] = {}
    """By the major that each one takes. A major without one cannot be read."""

    schema_: str = Field("", alias="schema")
    schema_version: Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+$")] = VERSION
    ext: JsonObject = {}

    @model_validator(mode="before")
    @classmethod
    def _read_version(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        name = data.setdefault("schema", data.pop("schema_", cls.schema_id))
        version = data.setdefault("schema_version", cls.version)
        if name != cls.schema_id:
            raise ValueError(f"this is a {name!r} record; expected {cls.schema_id!r}")
        if version == cls.version:  # as nearly all are
            return data
        major, minor = _parse_version(version)
        own_major, own_minor = _parse_version(cls.version)
        if major < own_major:
            return cls._upcast(data, major)
        if major > own_major:
            raise ValueError(f"{name} {version} cannot be read here; this reader knows {cls.version}")
        if minor > own_minor:
            known = {field.alias or key for key, field in cls.model_fields.items()}
            unknown = {key: data.pop(key) for key in list(data) if key not in known}
            data["ext"] = {**data.get("ext", {}), **unknown}
        return data

    @classmethod
    def _upcast(cls, data: dict[str, Any], major: int) -> dict[str, Any]:
        own_major, _ = _parse_version(cls.version)
        for older in range(major, own_major):
            if (upcaster := cls.upcasters.get(older)) is None:
                raise ValueError(f"{cls.schema_id} {older}.x cannot be read any more")
            data = upcaster(dict(data))
        return {**data, "schema": cls.schema_id, "schema_version": cls.version}

    def to_line(self) -> bytes:
        """The record as one JSONL line, its line feed included."""
        return self.model_dump_json().encode() + b"\n"


def _parse_version(version: Any) -> tuple[int, int]:
    parts = str(version).split(".")
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise ValueError(f"`schema_version` {version!r} is not major.minor")
    return int(parts[0]), int(parts[1])
