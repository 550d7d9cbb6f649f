"""Kubernetes' own JSON Schemas, strict: an object of it has no field that it does not know."""

import functools
import json
from importlib.resources import files
from typing import Any

import jsonschema_rs

VERSION = "v1.34.0"

Object = dict[str, Any]


def faults(each: Object) -> list[str]:
    """What is wrong with an object, and where."""
    found = _validator(each["kind"], each["apiVersion"]).iter_errors(each)
    return [f"{'.'.join(map(str, fault.instance_path))}: {fault.message}" for fault in found]


@functools.cache
def _validator(kind: str, version: str) -> jsonschema_rs.Draft202012Validator:
    group, _, number = version.rpartition("/")
    name = "-".join([kind.lower(), *filter(None, [group.split(".")[0], number])])
    return jsonschema_rs.Draft202012Validator(_schema(name), retriever=lambda _: _schema("_definitions"))


@functools.cache
def _schema(name: str) -> Object:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"{VERSION}-local-strict"
    found: Object = json.loads((folder / f"{name}.json").read_text())
    return found
