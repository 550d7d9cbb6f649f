"""Renders an overlay as `kubectl apply -k` would, for the part of kustomize that ours use.

That part: `resources`, `namespace`, `labels`, `patches` from files, merged as Kubernetes merges its lists.
"""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

MERGE_KEYS = {"containers": "name", "volumes": "name", "env": "name", "volumeMounts": "mountPath"}
UNDERSTOOD = {"apiVersion", "kind", "namespace", "resources", "labels", "patches"}
CLUSTER_WIDE = {"Namespace"}


def render(folder: Path) -> list[Object]:
    """All objects of an overlay, in the order in which they are named."""
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(settings) <= UNDERSTOOD, set(settings) - UNDERSTOOD
    objects = [each for name in settings["resources"] for each in _resource(folder / name)]
    for patch in settings.get("patches", []):
        _patch(objects, folder / patch["path"], patch.get("target"))
    for labels in settings.get("labels", []):
        for each in objects:
            _label(each, labels)
    for each in objects:
        if "namespace" in settings and each["kind"] not in CLUSTER_WIDE:
            each["metadata"]["namespace"] = settings["namespace"]
    return objects


def documents(path: Path) -> list[Object]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each is not None]


def _resource(path: Path) -> list[Object]:
    return render(path.resolve()) if path.is_dir() else documents(path)


def _patch(objects: list[Object], path: Path, target: dict[str, str] | None) -> None:
    for patch in documents(path):
        kind = target["kind"] if target is not None else patch["kind"]
        chosen = [
            each
            for each in objects
            if re.fullmatch(kind, each["kind"])
            and (target is not None or each["metadata"]["name"] == patch["metadata"]["name"])
        ]
        assert chosen, f"{path}: {kind} {patch['metadata']['name']} is not there"
        change = {key: value for key, value in patch.items() if key not in ("apiVersion", "kind", "metadata")}
        for each in chosen:
            merged = _merged(each, change, "")
            each.clear()
            each.update(merged)


def _merged(old: Any, new: Any, name: str) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {
            key: _merged(old.get(key), new[key], key) if key in new else old[key] for key in {**old, **new}
        }
    if isinstance(old, list) and isinstance(new, list) and name in MERGE_KEYS:
        return list(_by_key(old, new, MERGE_KEYS[name]))
    return copy.deepcopy(new)


def _by_key(old: list[Object], new: list[Object], key: str) -> Iterator[Object]:
    """Kustomize puts what a patch adds first; the order means nothing to Kubernetes."""
    changes = {each[key]: each for each in new}
    known = {each[key] for each in old}
    yield from (copy.deepcopy(each) for each in new if each[key] not in known)
    for each in old:
        yield _merged(each, changes.get(each[key], {}), "")


def _label(each: Object, labels: Object) -> None:
    places = [each["metadata"]]
    if labels.get("includeTemplates") and "template" in each.get("spec", {}):
        places += [each["spec"]["template"]["metadata"]]
        places += [claim["metadata"] for claim in each["spec"].get("volumeClaimTemplates", [])]
    for place in places:
        place["labels"] = {**place.get("labels", {}), **labels["pairs"]}
