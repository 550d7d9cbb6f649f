"""Artifacts mended by the fixes that findings carry, as docs/validators.md tells clients to."""

import copy
from typing import Any

from schemas.verdicts import Finding


def apply_fixes(artifact: dict[str, Any], findings: list[Finding]) -> dict[str, Any]:
    """From the last finding to the first, each fix once."""
    artifact = copy.deepcopy(artifact)
    done: list[Any] = []
    for finding in reversed(findings):
        if finding.fix is None or finding.fix in done:
            continue
        done.append(finding.fix)
        *way, last = str(finding.fix["path"]).split("/")[1:]
        target: Any = artifact
        for part in way:
            target = target[int(part) if isinstance(target, list) else part]
        key: Any = int(last) if isinstance(target, list) and last != "-" else last
        if finding.fix["op"] == "remove":
            del target[key]
        elif last == "-":
            target.append(finding.fix["value"])
        else:
            target[key] = finding.fix["value"]
    return artifact
