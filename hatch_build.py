"""Puts the daemons under the wheel's private import root (`stillhouse/_root`).

Their names are generic (`validators` exists on the package index), so site-packages gets one name only.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOTS = ("gateway", "embedd", "vectord", "chatd", "distill", "validators", "modeld", "services", "schemas")


class PrivateRoot(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":  # an editable install reads the tree itself
            build_data["force_include"] |= {name: f"stillhouse/_root/{name}" for name in ROOTS}
