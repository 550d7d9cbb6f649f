"""What can be exported, for whom: how each trainer's rows are made, and what they are held against."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from distill.engine.exports import checks, targets
from distill.engine.exports.targets import Row, Sample


@dataclass(frozen=True, slots=True)
class Target:
    """`form` makes a row of a sample, `check` looks at every key of it; both raise `Unfit`."""

    form: Callable[[Sample], Row]
    check: Callable[[Row], None]


TARGETS: Final[Mapping[str, Mapping[str, Target]]] = {
    "rag": {"stillhouse": Target(targets.rag, checks.rag)},
    "sft": {
        "openai": Target(targets.openai_sft, checks.openai_sft),
        "trl": Target(targets.trl_sft, checks.trl_sft),
        "together": Target(targets.together_sft, checks.together_sft),
        "llamafactory": Target(targets.llamafactory_sft, checks.llamafactory_sft),
    },
    "preference": {
        "openai": Target(targets.openai_preference, checks.openai_preference),
        "trl": Target(targets.trl_preference, checks.trl_preference),
        "axolotl": Target(targets.axolotl_preference, checks.axolotl_preference),
        "llamafactory": Target(targets.llamafactory_preference, checks.llamafactory_preference),
    },
}
"""By kind and target; the first target of a kind is the usual one."""
